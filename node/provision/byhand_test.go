package provision

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid/gridtest"
	"mlfnode/node"
	"mlfnode/node/processid"
)

// TestStopOfANodeStartedByHand has somebody run the node of a root folder by a program of their
// own: stop ends it in good order, and a shim that it has left, even one that does not listen.
func TestStopOfANodeStartedByHand(t *testing.T) {
	file := program(t)
	m := newMachine(t, file)
	ports := gridtest.FreePorts(t, "127.0.0.65", 3)
	config := filepath.Join(m.home, "node.yaml")
	if err := os.WriteFile(config, []byte(settings("127.0.0.65", "hand", ports)), 0o600); err != nil {
		t.Fatal(err)
	}
	byHand := exec.Command(file, "master", "--state-dir", m.State(), "--config", config)
	byHand.Env = append(os.Environ(), "HOME="+m.home, "XDG_CONFIG_HOME="+m.home+"/config", "XDG_RUNTIME_DIR="+m.home)
	var log bytes.Buffer
	byHand.Stdout, byHand.Stderr, byHand.WaitDelay = &log, &log, time.Second
	if err := byHand.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- byHand.Wait() }()
	t.Cleanup(func() {
		_ = byHand.Process.Kill() // where stop has failed
	})
	waitFor(t, "the node answers", func() bool {
		return m.mustAct(protocol.ActionInspect, protocol.Request{}).Observed.Active
	})
	if r := m.mustAct(protocol.ActionStop, protocol.Request{}); len(r.Observed.Leftovers) > 0 || r.Observed.Active {
		t.Errorf("got %+v, want nothing left", r.Observed)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the node ended with %v, want it to end in good order:\n%s", err, log.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the node that was started by hand runs on")
	}

	for i, command := range []string{node.ShimCommand, node.FormerShimCommand} {
		t.Run(command, func(t *testing.T) { testStopEndsShim(t, m, command, node.ShimFolders(m.State())[i]) })
	}
}

// testStopEndsShim checks that stop ends a shim that ignores TERM, whatever its version called it.
func testStopEndsShim(t *testing.T, m *machine, command, folder string) {
	dir := t.TempDir()
	script := filepath.Join(dir, command)
	if err := os.WriteFile(script, []byte("trap '' TERM\nread _\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shim := exec.Command("/bin/sh", command, "--dir", folder, "--id", "7")
	shim.Dir = dir
	in, err := shim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := shim.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- shim.Wait() }()
	if id, ok := processid.Of(shim.Process.Pid); !ok || id.Signal(0) != nil {
		t.Fatal("the shim does not run")
	}
	waitFor(t, "the shim has its name", func() bool { return len(nodeProcesses(m.Layout)) == 1 })
	if r := m.mustAct(protocol.ActionStop, protocol.Request{}); len(r.Observed.Leftovers) > 0 {
		t.Errorf("got %+v, want nothing left", r.Observed)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		_ = shim.Process.Signal(unix.SIGKILL)
		t.Fatal("the shim runs on")
	}
}
