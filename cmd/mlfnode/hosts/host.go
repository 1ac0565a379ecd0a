package hosts

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Host is one host of a harness. Its methods end the test if the host itself does not work as it
// should.
type Host struct {
	Name string // its host name, which all hosts resolve
	Addr string // its address
	Home string // its user's home, with its state folder
	// Agent is the node agent, once Cluster or Launch has started one.
	Agent *Proc

	harness *Harness
	number  int

	// Set by SSH and Laptop.
	machine *SSHD
	sshd    *Proc
	user    string            // the user of this laptop
	files   map[string]string // as they were when Snapshot was called

	mu    sync.Mutex
	power *power  // nil while the host is off
	procs []*Proc // everything that StartCommand has started
	skew  time.Duration
}

// StateDir returns the state folder of the host's node.
func (h *Host) StateDir() string { return filepath.Join(h.Home, "state", "mlfnode") }

func (h *Host) etc() string  { return filepath.Join(h.Home, "etc") }
func (h *Host) temp() string { return filepath.Join(h.Home, "tmp") }

func (h *Host) write(name, content string) {
	h.harness.t.Helper()
	if err := os.WriteFile(filepath.Join(h.etc(), name), []byte(content), 0o644); err != nil {
		h.harness.t.Fatal(err)
	}
}

// Boot powers the host on, with a new boot ID and no processes.
func (h *Host) Boot() {
	h.harness.t.Helper()
	h.write("boot_id", newBootID())
	p, err := powerOn(h.Name, h.etc())
	if err != nil {
		h.harness.t.Fatalf("boot %s: %v", h.Name, err)
	}
	h.mu.Lock()
	h.power, h.skew = p, 0
	h.mu.Unlock()
	if err := h.connectTap(p); err != nil {
		h.harness.t.Fatalf("connect %s: %v", h.Name, err)
	}
	h.reapplyMachineFiles()
}

// newBootID returns an ID in the form of /proc/sys/kernel/random/boot_id.
func newBootID() string {
	var b [16]byte
	rand.Read(b[:]) // it never fails, see crypto/rand
	return fmt.Sprintf("%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// PowerCut disconnects the host from the network and kills everything on it at the same moment.
// Nobody is notified. With Options.Lossy its disk loses what was not synced.
func (h *Host) PowerCut() {
	h.harness.t.Helper()
	h.mu.Lock()
	p, procs := h.power, h.procs
	h.power, h.procs, h.Agent = nil, nil, nil
	h.mu.Unlock()
	if p == nil {
		return
	}
	h.harness.network.unplug(h.number)
	groups := cgroupsOf(p.init.Process.Pid)
	lossy := h.harness.options.Lossy
	if lossy {
		for _, q := range processesBeside(p.init.Process.Pid) {
			_ = unix.Kill(q.PID, unix.SIGSTOP) // it may have ended
		}
		h.snapshot()
	}
	p.off()
	for _, q := range procs {
		<-q.ended
	}
	removeCgroups(groups)
	if lossy {
		h.dropUnsynced()
	}
}

// Command prepares mlfnode with these arguments, for Go, Run and StartCommand.
func (h *Host) Command(args ...string) *exec.Cmd { return h.Program(h.program(), args...) }

// Program prepares any program of the machine, for Go, Run and StartCommand.
func (h *Host) Program(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	if h.user != "" {
		return h.As(h.user, cmd)
	}
	cmd.Dir = h.Home
	cmd.Env = append([]string{
		"HOME=" + h.Home, "XDG_STATE_HOME=" + filepath.Join(h.Home, "state"),
		"XDG_CONFIG_HOME=" + filepath.Join(h.Home, "config"),
		"TMPDIR=" + h.temp(), "PATH=" + os.Getenv("PATH"), "NO_COLOR=1",
	}, h.harness.options.Env...)
	return cmd
}

// Go starts a command inside the host. The caller waits for it.
func (h *Host) Go(cmd *exec.Cmd) error {
	h.mu.Lock()
	p, skew := h.power, h.skew
	h.mu.Unlock()
	if p == nil {
		return errors.New(h.Name + " is off")
	}
	if err := p.call(cmd.Start); err != nil {
		return err
	}
	if skew == 0 {
		return nil
	}
	return setClock(cmd.Process.Pid, skew)
}

// Result describes how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code, -1 after a signal
}

// Try runs mlfnode to completion.
func (h *Host) Try(args ...string) Result { return h.Run(h.Command(args...)) }

// Run runs a command to completion.
func (h *Host) Run(cmd *exec.Cmd) Result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := h.Go(cmd); err != nil {
		return Result{Stderr: err.Error(), Code: -1}
	}
	_ = cmd.Wait() // the exit code tells everything
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// Must runs mlfnode, which must succeed, and returns its output.
func (h *Host) Must(args ...string) string {
	h.harness.t.Helper()
	r := h.Try(args...)
	if r.Code != 0 {
		h.harness.t.Fatalf("%s: mlfnode %s: exit code %d\n%s%s", h.Name, strings.Join(args, " "), r.Code,
			tail(r.Stdout), tail(r.Stderr))
	}
	return r.Stdout
}

func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}
