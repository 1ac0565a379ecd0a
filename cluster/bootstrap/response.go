package bootstrap

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

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

// readResponse decodes the output of mlfnode on a machine. It refuses invalid names, digests and
// kinds, and makes text for people safe to show.
func readResponse(out string) (*protocol.Response, error) {
	r := &protocol.Response{}
	err := json.Unmarshal([]byte(lastLine(out)), r)
	if err == nil {
		problems := []error{checkName(r.FormerName)}
		if slices.ContainsFunc(r.Missing, func(name string) bool { return name == "" || !printable.Plain(name) }) {
			problems = append(problems, errors.New("it lists a file without a valid name"))
		}
		if s := r.Observed; s != nil {
			problems = append(problems, checkName(s.Node), checkDigest(s.Digest), checkDigest(s.Cluster),
				checkWord("role", string(s.Role), string(grid.Master), string(grid.Worker)),
				checkWord("service", s.Service, protocol.ServiceSystem, protocol.ServiceUser,
					protocol.ServiceBackground),
				checkWord("service", s.BestService, protocol.ServiceSystem, protocol.ServiceUser,
					protocol.ServiceBackground))
		}
		err = errors.Join(problems...)
	}
	if err != nil {
		return nil,
			problem(fmt.Sprintf("mlfnode on that machine sent an answer that this one does not understand (%s): %s",
				clip(err.Error()), clip(out)), "run up again, so that both have the same version")
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
			if at, invalid := netip.ParseAddrPort(a.Address); invalid != nil || at.Port() == 0 {
				err = fmt.Errorf("%s is not an address with a port", clip(a.Address))
			}
		}
		if err != nil {
			return fmt.Errorf("read the members of its cluster: %w", err)
		}
		a.State = protocol.Line(a.State)
	}
	return nil
}
