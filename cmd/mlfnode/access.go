package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
)

// welcomeTime bounds a try to reach the master.
const welcomeTime = 5 * time.Second

// setUpAccess lets this user's commands go to the cluster that has come up, unless they do already.
func setUpAccess(ctx context.Context, ui *console, addresses []string, makeToken func() (string, error)) string {
	if known, was := hasAccess(ctx, addresses); known {
		if was {
			return "your commands go to this cluster again"
		}
		return ""
	}
	text, err := makeToken()
	if err != nil {
		return "your commands do not reach the cluster yet: " + err.Error()
	}
	token, err := trust.ParseToken(text)
	if err != nil {
		return "your commands do not reach the cluster yet: " + err.Error()
	}
	why := errors.New("it has no address")
	for _, address := range addresses {
		var c trust.Context
		if c, why = introduce(ctx, address, token); why == nil {
			c.Role = trust.RoleAdmin
			var kept string
			if kept, why = node.SaveContext(c); why == nil {
				noteKeptContext(ui, kept)
				return "your commands go to this cluster now"
			}
		}
	}
	return fmt.Sprintf("this machine can't talk to the cluster (%v); open the port, or run commands on the master: %s", why, strings.Join(addresses, " or "))
}

// noteKeptContext says where the context of another cluster stays, "" for none.
func noteKeptContext(ui *console, file string) {
	if file != "" {
		_, id, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), "-")
		ui.say("your access to another cluster is kept in %s; go back to that cluster with: mlfnode context use %s", file, id)
	}
}

func introduce(ctx context.Context, address string, token trust.Token) (trust.Context, error) {
	ctx, stop := context.WithTimeout(ctx, welcomeTime)
	defer stop()
	return node.Introduce(ctx, address, token)
}

// hasAccess reports whether commands go to a master at one of the addresses, and are heard there; and whether it was down before.
func hasAccess(ctx context.Context, addresses []string) (known, wasDown bool) {
	file, err := node.ContextFile()
	if err != nil {
		return false, false
	}
	c, err := trust.LoadContext(file)
	if err != nil || c.Role != trust.RoleAdmin || !slices.ContainsFunc(c.Master, func(m string) bool { return slices.Contains(addresses, m) }) {
		return false, false
	}
	contact, err := node.FindContact("")
	if err != nil || contact == nil {
		return false, false
	}
	ctx, stop := context.WithTimeout(ctx, welcomeTime)
	defer stop()
	s, err := node.Reach(ctx, contact)
	if err != nil {
		return false, false
	}
	s.Close()
	return true, c.Down != nil
}

// recordDown notes, once the master is down, that the cluster of this user's context can be brought up with the file. After a purge it
// takes back what welcome did. Another cluster, whose master may have run on the same machine, is left alone.
func recordDown(ctx context.Context, all []bootstrap.Outcome, purged bool, with string) error {
	i := slices.IndexFunc(all, func(o bootstrap.Outcome) bool { return slices.Contains(o.Roles, bootstrap.Master) })
	if i < 0 || !all[i].OK {
		return nil
	}
	file, err := node.ContextFile()
	if err != nil {
		return nil // then there is no context
	}
	known, err := trust.LoadContext(file)
	if errors.Is(err, trust.ErrNoContext) {
		return nil
	}
	if err != nil {
		return err
	}
	if gone := purged && wasPurged(ctx, known, &all[i], absolute(with)); !gone && !known.Trusts(all[i].Authority) {
		return nil
	}
	if purged {
		if err := os.Remove(file); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(file)) // other files may be in it
		return nil
	}
	if known.Down != nil && len(all[i].Changed) == 0 {
		return nil // it was down before
	}
	known.Down = &trust.Down{At: time.Now().Truncate(time.Second), File: absolute(with)}
	_, err = node.SaveContext(known)
	return err
}

// wasPurged reports whether a master that has no files any more, which would name its cluster, was that of the context: the context goes
// to an address of its machine, where nothing answers. file is what describes the cluster.
func wasPurged(ctx context.Context, known trust.Context, master *bootstrap.Outcome, file string) bool {
	if master.Authority != "" || known.Down != nil && known.Down.File != file {
		return false
	}
	here := false
	ctx, stop := context.WithTimeout(ctx, welcomeTime)
	defer stop()
	for _, address := range known.Master {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address); err == nil {
			conn.Close()
			return false // of another cluster
		}
		host, _, _ := net.SplitHostPort(address)
		here = here || slices.Contains(master.Reached, host)
	}
	return here
}

// absolute gives a path that means the same file in every folder, as far as that can be told.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// markStopped has status say of a cluster that this user has taken down, and that nobody has brought up since, that it is stopped, and
// since when. file describes it.
func markStopped(all []bootstrap.Outcome, file string) {
	contexts, err := node.Contexts()
	if err != nil {
		return // each command that needs them says so
	}
	i := slices.IndexFunc(contexts, func(k node.KnownContext) bool { return k.Down != nil && k.Down.File == absolute(file) })
	if i < 0 || slices.ContainsFunc(all, func(o bootstrap.Outcome) bool { return o.Seen != nil && (o.Seen.Active || o.Seen.Service != "") }) {
		return
	}
	for j := range all {
		if o := &all[j]; o.Problem != nil && o.Seen != nil && o.Problem.Cure == bootstrap.CureStart {
			o.Stopped = &contexts[i].Down.At
			o.Problem.Cause = "the node does not run, because the cluster was taken down on " + dayAndTime(*o.Stopped)
			if file != bootstrap.DefaultFile {
				o.Problem.Cure += " " + grid.ShellWords(file)
			}
		}
	}
}

// dayAndTime is a moment for people to read.
func dayAndTime(t time.Time) string { return t.Local().Format("2 January 2006 15:04") }

// expandHome gives ~/ its meaning, which a shell does not do in a file.
func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	home, err := os.UserHomeDir()
	if !ok || err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

// asker asks on the terminal, in the place of the view.
type asker struct {
	ui   *console
	view *view
}

// newPrompter asks what ssh wants to know, nil where there is no terminal.
func newPrompter(ui *console, v *view) shell.Prompter {
	if !isTerminal(os.Stdin) || !isTerminal(ui.stderr) {
		return nil
	}
	return &asker{ui, v}
}

// Confirm implements shell.Prompter.
func (k *asker) Confirm(ctx context.Context, question string) (bool, error) {
	defer k.view.pause()()
	fmt.Fprint(k.ui.stderr, question+" (yes/no) ")
	line, err := answerOr(ctx, func() (string, error) { return readLine(os.Stdin) })
	return strings.EqualFold(line, "yes"), err
}

// agree asks whether results may go.
func (k *asker) agree(ctx context.Context, losses []string) error {
	defer k.view.pause()()
	k.ui.say("this removes for good:")
	for _, l := range losses {
		k.ui.say("  %s", oneLine(l))
	}
	if !isTerminal(os.Stdin) || !isTerminal(k.ui.stderr) {
		return failed("this removes results, and there is no terminal to confirm it on; nothing was changed",
			"mlfnode down --purge --yes, or mlfnode down, which keeps all files")
	}
	yes, err := k.Confirm(ctx, "Remove it?")
	if err == nil && !yes {
		return failed("nothing was changed", "mlfnode down, which keeps all files")
	}
	return err
}

// Secret implements shell.Prompter.
func (k *asker) Secret(ctx context.Context, question string) ([]byte, error) {
	defer k.view.pause()()
	return k.ui.askSecret(ctx, secretQuestion(question))
}

// secretQuestion is a question as it is shown. The machine may have asked it.
func secretQuestion(text string) string {
	text = oneLine(text)
	if !strings.HasSuffix(text, ":") && !strings.HasSuffix(text, "?") {
		text += ":"
	}
	return text + " "
}

// readLine reads a line byte by byte, so that what follows is left to the next question.
func readLine(f *os.File) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := f.Read(b)
		if n == 0 || b[0] == '\n' {
			return strings.TrimSpace(string(line)), err
		}
		line = append(line, b[0])
	}
}
