package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/durable"
	"mlfnode/node/poll"
)

// machine is one of a test: a root folder, and the real program in it.
type machine struct {
	protocol.Layout
	t    *testing.T
	home string
}

// program builds mlfnode once for the whole test.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mlfnode")
	if out, err := exec.Command("go", "build", "-o", file, "mlfnode/cmd/mlfnode").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return file
}

func newMachine(t *testing.T, program string) *machine {
	t.Helper()
	home := t.TempDir()
	m := &machine{Layout: protocol.Layout{Root: filepath.Join(home, "mlfnode")}, t: t, home: home}
	m.ship(program)
	t.Cleanup(func() { m.act(protocol.ActionStop, protocol.Request{}) })
	return m
}

// ship puts the program in its place, as a new file.
func (m *machine) ship(program string) {
	m.t.Helper()
	b, err := os.ReadFile(program)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(m.Program()), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(m.Program(), b, 0o755)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// command runs the machine's program.
func (m *machine) command(args ...string) *exec.Cmd {
	c := exec.Command(m.Program(), args...)
	c.Env = append(os.Environ(), "HOME="+m.home, "XDG_CONFIG_HOME="+m.home+"/config", "XDG_RUNTIME_DIR="+m.home)
	c.WaitDelay = time.Second
	return c
}

// act sends a request to the machine's program.
func (m *machine) act(action string, o protocol.Request, rest ...byte) protocol.Response {
	m.t.Helper()
	if _, err := os.Stat(m.Program()); err != nil {
		return protocol.Response{} // it was purged
	}
	o.Version, o.Root = protocol.Version, m.Root
	line, err := json.Marshal(o)
	if err != nil {
		m.t.Fatal(err)
	}
	c := m.command(protocol.Command, action)
	var complaints bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(append(append(line, '\n'), rest...)), &complaints
	out, err := c.Output()
	var r protocol.Response
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		m.t.Fatalf("%s: %v\n%s%s", action, err, out, complaints.String())
	}
	return r
}

// mustAct fails the test when the response has a problem.
func (m *machine) mustAct(action string, o protocol.Request, rest ...byte) protocol.Response {
	m.t.Helper()
	r := m.act(action, o, rest...)
	if r.Problem != nil {
		log, _ := os.ReadFile(m.Log())
		m.t.Fatalf("%s: got %s (%s)\n%s", action, r.Problem.Cause, r.Problem.Cure, log)
	}
	return r
}

// run runs a command of mlfnode with the machine's node.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.command(append(args, "--config", m.Config(), "--state-dir", m.State())...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("mlfnode %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// settings gives node.yaml for a node on a loopback address.
func settings(address, name string, ports []int) string {
	return protocol.NodeHeading +
		fmt.Sprintf("node: %s\nbind: %s\nadvertise: %[2]s\nports:\n  api: %d\n  nats: %d\n  gossip: %d\n", name,
			address, ports[0], ports[1], ports[2])
}

// waitFor waits until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !poll.Within(context.Background(), 30*time.Second, pollInterval, ok) {
		t.Fatalf("%s: it did not happen in 30 s", what)
	}
}

func wantDone(t *testing.T, r protocol.Response, want ...string) {
	t.Helper()
	if got := strings.Join(r.Done, ", "); got != strings.Join(want, ", ") {
		t.Errorf("got done %q, want %q", got, strings.Join(want, ", "))
	}
}
