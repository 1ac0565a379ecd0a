package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
)

// machine is one machine of an operation.
type machine struct {
	*Host
	shell         shell.Machine
	reachedAs     string // host name or address by which this machine reached it
	facts         *Facts
	observed      *protocol.Observed // its state when it last answered
	gossip        string             // address of its gossip, once others have seen it
	memberCache   memberCache        // what its node reports
	removed       bool               // from the cluster, and to be stopped
	stopped       bool               // because it was removed
	forceRestart  bool               // restart it although nothing differs
	sharesWith    []*machine         // machines that share its folder
	previousSince time.Time          // since when others had seen the node before it was restarted
}

// installScript installs mlfnode: it writes a file beside the old one, and renames it once it is
// complete. DIGEST, PROGRAM and UNPACK are replaced.
const installScript = `
umask 077
set -e
dir=$(dirname PROGRAM)
mkdir -p "$dir"
for old in "$dir"/.ship-*; do # of a run that was killed
	kill -0 "${old##*-}" 2>/dev/null || rm -f "$old"
done
new=$dir/.ship-$$
trap 'rm -f "$new"' EXIT
UNPACK >"$new"
got=$(sha256sum "$new" | cut -d' ' -f1)
[ "$got" = DIGEST ] || { echo "the program arrived damaged" >&2; exit 1; }
chmod 755 "$new"
mv -f "$new" PROGRAM
echo DIGEST "$(stat -Lc '%s %z %i' PROGRAM 2>/dev/null)" >"$dir"/.digest
`

// install installs the program on the machine, unless the same one is there, and returns what it
// did.
func (m *machine) install(ctx context.Context, b *build) (_ string, err error) {
	if m.facts.Digest == b.digest {
		return "", nil
	}
	unpack, content := "cat", b.content
	if m.facts.Gzip {
		unpack = "gzip -dc"
		if content, err = b.compressed(); err != nil {
			return "", fmt.Errorf("pack the program: %w", err)
		}
	}
	script := strings.NewReplacer("DIGEST", b.digest, "PROGRAM", shell.Quote(m.facts.Layout.Program()),
		"UNPACK", unpack).Replace(installScript)
	err = m.shell.Run(ctx, script, bytes.NewReader(content), nil)
	root := m.facts.Layout.Root
	exit, failed := errors.AsType[*shell.ExitError](err)
	switch {
	case failed && strings.Contains(exit.Stderr, "No space left"):
		return "", problem("the disk of "+root+" is full", "make room on it, or choose a folder on another one with -r")
	case failed:
		return "", problem(fmt.Sprintf("the program can't be put into %s: %s", root, lastLine(exit.Error())),
			"look at the folder there, or choose another one with -r")
	case err != nil:
		return "", err
	}
	m.facts.Digest = b.digest
	return fmt.Sprintf("installed mlfnode (%d MB)", len(b.content)/1_000_000), nil
}

func problem(cause, cure string) *shell.Problem { return &shell.Problem{Cause: cause, Cure: cure} }

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// exitCannotExecute is a shell's exit code for a file that it may not execute.
const exitCannotExecute = 126

// exitNoSuchCommand is mlfnode's exit code for a command that it does not have.
const exitNoSuchCommand = 2

// call sends a request to mlfnode on the machine, with more after it on its standard input. If the
// response reports a problem, call returns both.
func (m *machine) call(
	ctx context.Context, action string, o protocol.Request, more io.Reader,
) (*protocol.Response, error) {
	o.Version, o.Root = protocol.Version, m.facts.Layout.Root
	line, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	limit := requestTimeout
	switch action {
	case protocol.ActionReceive:
		limit = 0 // it depends on the speed of the network
	case protocol.ActionStop:
		limit = stopTimeout
	}
	send := func(command string, stdin io.Reader) (string, error) {
		return withTimeout(ctx, limit, "its mlfnode", func(ctx context.Context) (string, error) {
			return shell.Output(ctx, m.shell, unsetVariables+shell.Quote(m.facts.Layout.Program())+" "+
				command+" "+action, stdin)
		})
	}
	line = append(line, '\n')
	stdin := io.Reader(bytes.NewReader(line))
	if more != nil {
		stdin = io.MultiReader(stdin, more)
	}
	out, err := send(protocol.Command, stdin)
	var exit *shell.ExitError
	// an older mlfnode that has not been replaced yet
	if errors.As(err, &exit) && exit.Code == exitNoSuchCommand && more == nil {
		out, err = send(protocol.FormerCommand, bytes.NewReader(line))
	}
	if errors.As(err, &exit) {
		if exit.Code == exitCannotExecute {
			return nil, problem("nothing in "+m.facts.Layout.Root+
				" can be run, as if its disk were mounted with noexec",
				"choose a folder on another disk with -r")
		}
		return nil, problem("mlfnode does not run there: "+lastLine(exit.Error()),
			"log in and try: "+m.facts.Layout.Program()+" version")
	}
	if err != nil {
		return nil, err
	}
	r, err := readResponse(out)
	if err != nil {
		return nil, err
	}
	// which runs for several machines at a time, and reports no state
	if r.Observed != nil && action != protocol.ActionReach {
		m.observed = r.Observed
	}
	switch {
	case r.Problem != nil:
		return r, r.Problem
	case r.Observed == nil && (action == protocol.ActionInspect || action == protocol.ActionStart):
		return nil, problem("mlfnode on that machine does not report its state",
			"run up again, so that both have the same version")
	}
	return r, nil
}

// runJSON runs a command of mlfnode on the machine, for its node, and decodes what it prints as
// JSON.
func (m *machine) runJSON(ctx context.Context, to any, args ...string) error {
	out, err := m.runCommand(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), to); err != nil {
		return fmt.Errorf("read what mlfnode %s printed: %w", args[0], err)
	}
	return nil
}

// runCommand runs a command of mlfnode on the machine, for its node, and returns what it prints.
func (m *machine) runCommand(ctx context.Context, args ...string) (string, error) {
	line := m.commandLine("", append([]string{"--config", m.facts.Layout.Config()}, args...)...)
	return withTimeout(ctx, commandTimeout, "mlfnode "+args[0], func(ctx context.Context) (string, error) {
		return shell.Output(ctx, m.shell, line, nil)
	})
}

// commandLine returns a shell script that runs a command of mlfnode for the machine's node, with
// the shell words before in front of it.
func (m *machine) commandLine(before string, args ...string) string {
	words := append([]string{m.facts.Layout.Program(), "--state-dir", m.facts.Layout.State()}, args...)
	for i := range words { // each of them: some come from other machines
		words[i] = shell.Quote(words[i])
	}
	return unsetVariables + before + strings.Join(words, " ")
}

// unsetVariables unsets the MLF_* variables of start-up files, which may be meant for another
// cluster, and executes what follows.
const unsetVariables = `for v in $(env | sed -n 's/^\(MLF_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done; exec `
