package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// asProgram gives a file that runs this program as mlfnode.
func asProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "mlfnode")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(clientTimeout); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: it did not happen within %v", what, clientTimeout)
		}
	}
}

// childThat gives the child of a process that runs this command of mlfnode.
func childThat(t *testing.T, parent, command string) int {
	t.Helper()
	lists, _ := filepath.Glob("/proc/" + parent + "/task/*/children") // of each thread
	for _, list := range lists {
		children, _ := os.ReadFile(list) // it may have ended, as may a child
		for _, child := range strings.Fields(string(children)) {
			args, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if pid, err := strconv.Atoi(child); err == nil && strings.Contains(string(args), "\x00"+command+"\x00") {
				return pid
			}
		}
	}
	t.Fatalf("no child of process %s runs %s", parent, command)
	return 0
}

// inContainer has a shell script stand in for an engine: what it runs last is the first process of
// a namespace, without control groups.
const inContainer = `mount -t tmpfs none /sys/fs/cgroup && exec "$@"`

// TestFirstProcessOfAContainer has mlfnode be process 1 of a container in which somebody else
// starts a daemon, as with docker exec: it is not part of the trial that runs in the meantime, and
// what it leaves is awaited. Ctrl-Z does not stop mlfnode, and it ends even if it is stopped.
func TestFirstProcessOfAContainer(t *testing.T) {
	gridtest.Root(t, "namespaces")
	nsenter, unshare := gridtest.Program(t, "nsenter"), gridtest.Program(t, "unshare")
	dir := t.TempDir()
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	touch := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(unshare, "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "sh", "-c",
		inContainer, "sh", asProgram(t),
		"sweep", "--state-dir", filepath.Join(dir,
			"state"), "--set", "i=1,2,3", "--max-parallel", "1", "--", "sh", "-c", "cd "+dir+
			`; touch begun$(echo "$1" | tr -dc 0-9); until [ -e gate$(echo "$1" | tr -dc 0-9) ]; do sleep 0.02; done`,
		"sh")
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_STATE_HOME="+dir)
	var said strings.Builder
	c.Stdout, c.Stderr, c.WaitDelay = &said, &said, time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { _ = c.Process.Kill() }) // where the test has failed
	eventually(t, "the first trial", func() bool { return exists("begun1") })
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	first := strings.TrimSpace(string(children))
	if names, _ := exec.Command(nsenter, "--target", first, "--pid", "--mount", "sh", "-c",
		"cat /proc/[0-9]*/comm").Output(); strings.Count(string(names), "mlfnode") < 2 {
		t.Errorf("got processes by these names, want two by that of the program:\n%s", names)
	}
	mlfnode := childThat(t, first, "sweep")
	if err := unix.Kill(-mlfnode, unix.SIGTSTP); err != nil { // as the terminal does: only a shell would have it go on
		t.Fatal(err)
	}
	inside := func(script string) {
		t.Helper()
		if out, err := exec.Command(nsenter, "--target", first, "--pid", "setsid", "--fork", "sh", "-c",
			script).CombinedOutput(); err != nil {
			t.Fatalf("run in the container: %v\n%s", err, out)
		}
	}
	inside("exec </dev/null >/dev/null 2>&1; cd " + dir + "; while :; do touch alive; sleep 0.02; done")
	inside("exec </dev/null >/dev/null 2>&1; cd " + dir + "; echo $$ >short")
	eventually(t, "the daemon", func() bool { return exists("alive") && exists("short") })
	touch("gate1")
	eventually(t, "the second trial", func() bool { return exists("begun2") })
	if err := os.Remove(filepath.Join(dir, "alive")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon to go on", func() bool { return exists("alive") })
	zombies := func() bool {
		out, err := exec.Command(nsenter, "--target", first, "--pid", "--mount", "sh", "-c",
			"grep -l '^State:.*zombie' /proc/[0-9]*/status").Output()
		return err == nil && len(out) > 0
	}
	eventually(t, "no process to be left that has ended", func() bool { return !zombies() })
	touch("gate2")
	eventually(t, "the third trial", func() bool { return exists("begun3") })
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(mlfnode, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mlfnode to stop", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", mlfnode))
		return strings.Contains(string(b), "State:\tT")
	})
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var status *exec.ExitError
	select {
	case err := <-ended:
		if !errors.As(err, &status) || status.ExitCode() != exitInterrupted {
			t.Errorf("ended with %v, want exit code 130\n%s", err, said.String())
		}
	case <-time.After(clientTimeout):
		t.Fatal("SIGTERM does not end it")
	}
}
