package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Processes is what runs on a host.
type Processes struct {
	host *Host

	mu      sync.Mutex
	power   *power  // nil while the host is off
	started []*Proc // everything that StartCommand has started since the host was booted
}

// attach takes over a host that has been booted.
func (ps *Processes) attach(p *power) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.power = p
}

// detach returns what attach and start have recorded, and forgets it: the host is off.
func (ps *Processes) detach() (*power, []*Proc) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p, started := ps.power, ps.started
	ps.power, ps.started = nil, nil
	return p, started
}

// call runs fn on a thread inside the host, see power.call.
func (ps *Processes) call(fn func() error) error {
	ps.mu.Lock()
	p := ps.power
	ps.mu.Unlock()
	if p == nil {
		return errors.New(ps.host.Name + " is off")
	}
	return p.call(fn)
}

// start starts a command in the background. Its output goes to a file.
func (ps *Processes) start(cmd *exec.Cmd, output string) *Proc {
	h, t := ps.host, ps.host.harness.t
	t.Helper()
	p := &Proc{Args: cmd.Args[1:], File: output, t: t, cmd: cmd, ended: make(chan struct{})}
	if err := h.Go(cmd); err != nil {
		t.Fatalf("%s: start %s: %v", h.Name, p, err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // the exit code tells everything
	}()
	ps.mu.Lock()
	ps.started = append(ps.started, p)
	ps.mu.Unlock()
	return p
}

// first returns the first process of the host, or 0 while it is off.
func (ps *Processes) first() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.power == nil {
		return 0
	}
	return ps.power.init.Process.Pid
}

// List lists what runs on the host, without the first process, which is part of the harness, and
// without zombies.
func (ps *Processes) List() []Process {
	first := ps.first()
	if first == 0 {
		return nil
	}
	return processesBeside(first)
}

// Leftovers lists what runs on the host apart from OpenSSH's server and what StartCommand has
// started: what other programs have left there.
func (ps *Processes) Leftovers() []Process {
	ps.mu.Lock()
	started := slices.Clone(ps.started)
	ps.mu.Unlock()
	return slices.DeleteFunc(ps.List(), func(p Process) bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID)) // it may have ended
		own := slices.ContainsFunc(started, func(q *Proc) bool { return q.PID() == p.PID })
		return own || strings.HasPrefix(filepath.Base(exe), "sshd")
	})
}

// Suspend pauses all processes of the host, as happens when a laptop's lid is closed or a virtual
// machine is moved. The network stays up.
func (ps *Processes) Suspend() { ps.signal(unix.SIGSTOP) }

// Continue undoes Suspend.
func (ps *Processes) Continue() { ps.signal(unix.SIGCONT) }

func (ps *Processes) signal(sig unix.Signal) {
	for _, p := range ps.List() {
		_ = unix.Kill(p.PID, sig) // it may have ended
	}
}

// Logs returns what each program that StartCommand has started on the host has printed, including
// before a power cut.
func (ps *Processes) Logs() []string {
	files, _ := filepath.Glob(filepath.Join(ps.host.temp(), "output-*")) // the pattern is valid
	var logs []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			logs = append(logs, string(text))
		}
	}
	return logs
}

// showLogs logs the output of the host's programs, for a failed test.
func (ps *Processes) showLogs() {
	for _, text := range ps.Logs() {
		ps.host.harness.t.Logf("printed on %s:\n%s", ps.host.Name, tail(text))
	}
}

// Process is a process on a host.
type Process struct {
	PID     int    // as the machine sees it
	Command string // its command line
}

func (p Process) is(program string) bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	return err == nil && path == program
}

// isShipped reports whether it is mlfnode, wherever on the host the program was put.
func (p Process) isShipped() bool {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	return err == nil && filepath.Base(path) == "mlfnode"
}

func processesBeside(first int) []Process {
	var found []Process
	home, err := pidNamespace(first)
	if err != nil {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is valid
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == first {
			continue
		}
		if ns, err := pidNamespace(pid); err != nil || ns != home {
			continue
		}
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && len(line) > 0 {
			command := bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
			found = append(found, Process{PID: pid, Command: string(command)})
		}
	}
	return found
}

func pidNamespace(pid int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)) }

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
