package servicetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	bootTime     = 60 * time.Second // a machine is up in one second; a busy one takes longer
	commandTime  = 90 * time.Second
	shutdownTime = 15 * time.Second
	look         = 50 * time.Millisecond // the interval at which conditions are checked
)

// Machine is a booted machine. Its methods end the test if something goes wrong that the test is
// not about.
type Machine struct {
	t       testing.TB
	nspawn  *exec.Cmd
	console string
	leader  int // the machine's init, by its PID on the test's own machine
	groups  []string
	ended   chan struct{}
	restore func() // undoes PassDown; nil if there is nothing to undo
}

var machines atomic.Int64

// Boot starts a machine and waits until its systemd has started everything. It is shut down with
// the test.
func Boot(t testing.TB) *Machine {
	t.Helper()
	require(t)
	dir := root(t)
	m := &Machine{t: t, console: filepath.Join(t.TempDir(), "console"), ended: make(chan struct{})}
	name := fmt.Sprintf("mlftest-%d-%d", os.Getpid(), machines.Add(1))
	console, err := os.Create(m.console)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	m.nspawn = m.command(name, "systemd-nspawn", "--quiet", "--keep-unit", "--register=no", "--private-network",
		"--volatile=overlay",
		"--link-journal=no", "--resolv-conf=off", "--timezone=off", "--machine="+name, "--directory="+dir, "--boot")
	m.nspawn.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=yes", "SYSTEMD_NSPAWN_LOCK=0")
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	if err := m.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = m.nspawn.Wait() // the console shows how it ended
		close(m.ended)
	}()
	t.Cleanup(m.Shutdown)
	m.waitUp()
	return m
}

// command returns the command line that puts the container into cgroups of its own: in a scope if
// this machine runs systemd, or else by hand, in the two hierarchies that systemd uses.
func (m *Machine) command(name string, args ...string) *exec.Cmd {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		scope := []string{"--scope", "--quiet", "--collect", "--unit=" + name, "-p", "Delegate=yes", "--"}
		return exec.Command("systemd-run", append(scope, args...)...)
	}
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		if _, err := os.Stat(filepath.Join(hierarchy, "cgroup.procs")); err == nil {
			m.groups = append(m.groups, filepath.Join(hierarchy, name))
		}
	}
	script := `for g in ` + strings.Join(m.groups, " ") +
		`; do mkdir -p $g && echo $$ > $g/cgroup.procs || exit 1; done; exec "$@"`
	return exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
}

// For returns the machine for a part of the test: a fault ends only that part.
func (m *Machine) For(t testing.TB) *Machine {
	part := *m
	part.t = t
	return &part
}

func (m *Machine) waitUp() {
	m.t.Helper()
	m.Until(bootTime, "the machine is up", func() bool {
		if m.leader == 0 {
			m.leader = m.findLeader()
		}
		if m.leader == 0 {
			return false
		}
		out, _ := m.Try("systemctl is-system-running")
		return strings.Contains(out, "running") || strings.Contains(out, "degraded")
	})
}

// findLeader looks for the child of nspawn that is process 1 of its own namespace.
func (m *Machine) findLeader() int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", m.nspawn.Process.Pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(b)) {
			status, _ := os.ReadFile("/proc/" + word + "/status")
			if bytes.Contains(status, []byte("NSpid:\t"+word+"\t1\n")) {
				pid, _ := strconv.Atoi(word)
				return pid
			}
		}
	}
	return 0
}

// Run runs a shell script as root on the machine and returns its output. The script must succeed.
func (m *Machine) Run(script string) string {
	m.t.Helper()
	out, err := m.Try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// join puts a script into a cgroup of the machine, since some of its services look up the cgroup of
// their clients.
const join = "echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs 2>/dev/null; "

// Try runs a shell script as root on the machine and returns its output and its error.
func (m *Machine) Try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime) // a test that has ended still shuts down
	defer cancel()
	c := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.leader), "--mount", "--uts",
		"--ipc", "--net", "--pid",
		"--root", "--wd", "--", "/bin/sh", "-c", join+script)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
		"USER=root", "LANG=C.UTF-8"}
	c.WaitDelay = time.Second // a process that continues in the background may hold the output open
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Copy copies a file to the machine, with its mode.
func (m *Machine) Copy(from, to string) {
	m.t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		m.t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	place := fmt.Sprintf("/proc/%d/root%s", m.leader, to)
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(place, b, info.Mode()); err != nil {
		m.t.Fatal(err)
	}
}

// Until waits until ok returns true, and ends the test with the machine's console if that takes
// longer than limit.
func (m *Machine) Until(limit time.Duration, what string, ok func() bool) {
	m.t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-m.ended:
			m.t.Fatalf("the machine ended before %s:\n%s", what, m.lastWords())
		case <-deadline:
			m.t.Fatalf("waited %v in vain until %s; its console:\n%s", limit, what, m.lastWords())
		}
	}
}

func (m *Machine) lastWords() string {
	b, _ := os.ReadFile(m.console)
	return tail(b, 30)
}

// Shutdown shuts down the machine, cleanly if possible.
func (m *Machine) Shutdown() {
	_ = m.nspawn.Process.Signal(syscall.SIGTERM) // nspawn asks the machine's init to halt
	select {
	case <-m.ended:
	case <-time.After(shutdownTime):
		if m.leader != 0 {
			_ = syscall.Kill(m.leader, syscall.SIGKILL) // this kills everything in its namespace
		}
		_ = m.nspawn.Process.Kill()
		<-m.ended
	}
	for _, g := range m.groups {
		removeGroup(g)
	}
	if m.restore != nil {
		m.restore()
	}
}

// removeGroup removes a cgroup and those within it. A cgroup that is still busy stays; nothing runs
// there.
func removeGroup(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = syscall.Rmdir(dir)
}

// PassDown makes the kernel pass a controller of the v2 hierarchy down to the units of the system,
// as systemd does with the controllers that it knows. ok is false if this machine has no such
// controller to pass.
func (m *Machine) PassDown(controller string) (ok bool) {
	m.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.leader))
	if err != nil {
		m.t.Fatal(err)
	}
	_, path, _ := strings.Cut(string(b), "0::")
	mount := "/sys/fs/cgroup"
	if _, err := os.Stat(mount + "/unified/cgroup.procs"); err == nil {
		mount += "/unified"
	}
	control := filepath.Join(mount, "cgroup.subtree_control")
	before, err := os.ReadFile(control)
	if err != nil || os.WriteFile(control, []byte("+"+controller), 0) != nil {
		return false
	}
	if !strings.Contains(string(before), controller) {
		m.restore = func() { _ = os.WriteFile(control, []byte("-"+controller), 0) }
	}
	dir := mount
	// init is in a scope of its own
	for part := range strings.SplitSeq(strings.Trim(filepath.Dir(strings.TrimSpace(path)), "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			m.t.Fatal(err)
		}
	}
	m.Run("echo +" + controller + " >/sys/fs/cgroup/system.slice/cgroup.subtree_control")
	return true
}
