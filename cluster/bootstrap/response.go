package bootstrap

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/printable"
)

// Bounds of a machine's response, which may be broken or in the hands of an attacker.
const (
	maxCause = 8 << 10 // it may contain the last lines of a log
	maxTexts = 64      // notes, changes, leftovers
	maxHome  = 4 << 10
	// maxConfig is more than a node.yaml can usefully have.
	maxConfig = 256 << 10
)

// readResponse decodes the output of mlfnode on a machine. It validates names, digests and the
// like, and makes text for people safe to show.
func readResponse(out string) (*protocol.Response, error) {
	r := &protocol.Response{}
	err := json.Unmarshal([]byte(lastLine(out)), r)
	if err == nil {
		err = checkResponse(r)
	}
	if err != nil {
		return nil, &shell.Problem{Cause: fmt.Sprintf("mlfnode on that machine sent an answer that this one does not understand (%s): %s", clip(err.Error()), clip(out)),
			Cure: "run up again, so that both have the same version"}
	}
	sanitizeProblem(r.Problem)
	sanitizeAll(&r.Notes)
	sanitizeAll(&r.Done)
	if s := r.Observed; s != nil {
		s.Release, s.Running = protocol.Line(s.Release), protocol.Line(s.Running)
		sanitizeAll(&s.Leftovers)
		if len(s.Config) > maxConfig {
			s.Config = ""
		}
		s.Problems = s.Problems[:min(len(s.Problems), maxTexts)]
		for i := range s.Problems {
			sanitizeProblem(&s.Problems[i])
		}
	}
	return r, nil
}

// checkResponse refuses a response with invalid names, digests or kinds.
func checkResponse(r *protocol.Response) error {
	problems := []error{checkName(r.FormerName)}
	for _, name := range r.Missing {
		if name == "" || !printable.Plain(name) {
			problems = append(problems, errors.New("it lists a file without a valid name"))
			break
		}
	}
	if s := r.Observed; s != nil {
		problems = append(problems, checkName(s.Node), checkDigest(s.Digest), checkDigest(s.Cluster),
			checkWord("role", s.Role, string(Master), string(Worker)),
			checkWord("service", s.Service, protocol.ServiceSystem, protocol.ServiceUser, protocol.ServiceBackground),
			checkWord("service", s.BestService, protocol.ServiceSystem, protocol.ServiceUser, protocol.ServiceBackground))
	}
	return errors.Join(problems...)
}

// checkName refuses text that is not a valid node name; an empty name is allowed.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	return trust.CheckNodeName(grid.NodeID(name))
}

func checkDigest(text string) error {
	if b, err := hex.DecodeString(text); text != "" && (err != nil || len(b) != 32) {
		return fmt.Errorf("%s is not a digest", clip(text))
	}
	return nil
}

func checkWord(what, word string, known ...string) error {
	if word != "" && !slices.Contains(known, word) {
		return fmt.Errorf("there is no %s %s", what, clip(word))
	}
	return nil
}

// checkEndpoint refuses text that is not IP:PORT.
func checkEndpoint(text string) error {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = netip.ParseAddr(host)
	}
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%s is not an address with a port", clip(text))
	}
	return nil
}

func sanitizeAll(texts *[]string) {
	*texts = (*texts)[:min(len(*texts), maxTexts)]
	for i := range *texts {
		(*texts)[i] = protocol.Line((*texts)[i])
	}
}

// sanitizeProblem makes a problem safe to show.
func sanitizeProblem(p *shell.Problem) *shell.Problem {
	if p != nil {
		p.Cause, p.Cure = printable.Text(p.Cause, maxCause), protocol.Line(p.Cure)
	}
	return p
}

// checkMembers refuses members with invalid names or addresses, which are passed on to other
// machines, and makes their states safe to show.
func checkMembers(all []member) error {
	for i := range all {
		a := &all[i]
		err := trust.CheckNodeName(grid.NodeID(a.Node))
		if err == nil && a.Address != "" {
			err = checkEndpoint(a.Address)
		}
		if err != nil {
			return fmt.Errorf("read the members of its cluster: %w", err)
		}
		a.State = protocol.Line(a.State)
	}
	return nil
}

// sanitize makes the facts safe to show and to use. It returns false if they can't be those of a
// machine.
func (f *Facts) sanitize() bool {
	for _, text := range []*string{&f.OS, &f.Arch, &f.User, &f.Host, &f.Glibc, &f.Refused, &f.existingDir} {
		*text = protocol.Line(*text)
	}
	for _, address := range []*string{&f.Client, &f.Server} {
		if _, err := netip.ParseAddr(*address); err != nil {
			*address = "" // treated as unknown
		}
	}
	if checkDigest(f.Digest) != nil {
		f.Digest = "" // then the program is installed
	}
	return path.IsAbs(f.Home) && printable.Plain(f.Home) && len(f.Home) <= maxHome
}
