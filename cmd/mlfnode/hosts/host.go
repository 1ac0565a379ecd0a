package hosts

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is one host of a harness. Its methods, and those of its parts, end the test if the host
// itself does not work as it should.
type Host struct {
	Name string // its host name, which all hosts resolve
	Addr string // its address
	Home string // its user's home, with its state folder

	Accounts  *Accounts  // see SSHServer.Install and Harness.Laptop
	Agent     *Agent     // the node agent
	Clock     *Clock     // of mlfnode processes
	Disk      *Disk      // see Options.Disk
	Files     *Files     // what has changed since a snapshot
	Network   *Network   // partitions, bad links, firewall, ports
	Processes *Processes // whatever runs there
	SSH       *SSHServer

	harness *Harness
	machine *machine // nil while the host shares the files of the machine that the test runs on
	user    string   // as whom Program runs, or "" for root
}

// newHost returns a host that is off. The number is its place in the harness.
func newHost(hs *Harness, name string, number int) *Host {
	h := &Host{Name: name, Addr: fmt.Sprintf("10.77.0.%d", number+1), Home: filepath.Join(hs.Dir, name), harness: hs}
	h.Accounts = &Accounts{host: h, firstUID: firstUser + number*mostUsers}
	h.Agent = &Agent{host: h}
	h.Clock = &Clock{host: h}
	h.Disk = newDisk(hs, h.Home)
	h.Files = &Files{host: h}
	h.Network = &Network{host: h, number: number, network: hs.network}
	h.Processes = &Processes{host: h}
	h.SSH = &SSHServer{host: h}
	return h
}

// StateDir returns the state folder of the host's node.
func (h *Host) StateDir() string { return filepath.Join(h.Home, "state", "mlfnode") }

func (h *Host) etc() string  { return filepath.Join(h.Home, "etc") }
func (h *Host) temp() string { return filepath.Join(h.Home, "tmp") }

func (h *Host) writeEtc(name, content string) error {
	return os.WriteFile(filepath.Join(h.etc(), name), []byte(content), 0o644)
}

// Boot powers the host on, with a new boot ID and no processes.
func (h *Host) Boot() {
	t := h.harness.t
	t.Helper()
	if err := h.writeEtc("boot_id", newBootID()); err != nil {
		t.Fatal(err)
	}
	p, err := powerOn(h.Name, h.etc())
	if err != nil {
		t.Fatalf("boot %s: %v", h.Name, err)
	}
	h.Clock.reset()
	h.Processes.attach(p)
	if err := h.Network.connect(p); err != nil {
		t.Fatalf("connect %s: %v", h.Name, err)
	}
	if h.machine == nil {
		return
	}
	if err := h.machine.apply(); err != nil {
		t.Fatal(err)
	}
	if h.SSH.proc != nil {
		h.SSH.Start()
	}
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
	p, procs := h.Processes.detach()
	h.Agent.Proc = nil
	if p == nil {
		return
	}
	h.Network.unplug()
	groups := cgroupsOf(p.init.Process.Pid)
	lossy := h.harness.options.Lossy
	if lossy {
		for _, q := range processesBeside(p.init.Process.Pid) {
			_ = unix.Kill(q.PID, unix.SIGSTOP) // it may have ended
		}
		h.Disk.copySynced()
	}
	p.off()
	for _, q := range procs {
		<-q.ended
	}
	removeCgroups(groups)
	if lossy {
		h.Disk.dropUnsynced()
	}
}

// Command prepares mlfnode with these arguments, for Go, Run and StartCommand.
func (h *Host) Command(args ...string) *exec.Cmd { return h.Program(h.mlfnode(), args...) }

// mlfnode returns the path at which the host has the mlfnode under test.
func (h *Host) mlfnode() string {
	if h.machine == nil {
		return h.harness.options.Program
	}
	return filepath.Join(h.etc(), "mlfnode")
}

// Program prepares any program of the machine, for Go, Run and StartCommand.
func (h *Host) Program(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	if h.user != "" {
		return h.Accounts.As(h.user, cmd)
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
	offset := h.Clock.current()
	if err := h.Processes.call(cmd.Start); err != nil {
		return err
	}
	if offset == 0 {
		return nil
	}
	return setClock(cmd.Process.Pid, offset)
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

// Start starts mlfnode in the background.
func (h *Host) Start(args ...string) *Proc { return h.StartCommand(h.Command(args...)) }

// StartCommand starts a command in the background.
func (h *Host) StartCommand(cmd *exec.Cmd) *Proc {
	h.harness.t.Helper()
	f, err := os.CreateTemp(h.temp(), "output-")
	if err != nil {
		h.harness.t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	return h.Processes.start(cmd, f.Name())
}
