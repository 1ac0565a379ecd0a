package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"mlfnode/grid/gridtest"
)

// DefaultUser has an account on every host whose SSHD lists no users, and is the user of a laptop.
const DefaultUser = "ada"

// SSHD describes a host as seen by users who log in over ssh. The zero value is an ordinary
// machine: port 22, an Ed25519 host key, an account for DefaultUser with bash that accepts the
// harness's key, and sudo, which that account may not use.
type SSHD struct {
	Port     int               // 22 if it is 0
	HostKeys []string          // of ed25519, rsa, ecdsa; ed25519 if it is nil
	Config   string            // additional lines of sshd_config, before all others, so that they take precedence
	Users    []User            // the accounts; root always has one
	NoSudo   bool              // sudo is not installed
	Programs map[string]string // scripts, with their first line, that replace the programs of these names
	Missing  []string          // names of programs that are not installed
	Machine  string            // the output of `uname -m`, as in "aarch64"; empty for the true one
	Ahead    time.Duration     // how far the clock is ahead according to `date`; Host.ClockJump sets mlfnode's clock
	System   string            // the output of `uname -s`, as in "FreeBSD"; empty for the true one
}

// sshdPath returns the path of OpenSSH's server, which must be started by its full path and is not
// in every PATH.
func sshdPath() (string, error) {
	for _, name := range []string{"sshd", "/usr/sbin/sshd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("sshd is not installed")
}

// SSH makes the host a machine of its own, see Host.applyMachineFiles, and starts OpenSSH's server
// there. Each Boot repeats both.
func (h *Host) SSH(o SSHD) { h.harness.SSH(o, h) }

// SSH starts OpenSSH's server on all these hosts, concurrently.
func (hs *Harness) SSH(o SSHD, on ...*Host) {
	hs.t.Helper()
	if _, err := sshdPath(); err != nil {
		gridtest.Program(hs.t, "sshd")
	}
	key := hs.publicKey()
	errs := make([]error, len(on))
	var all sync.WaitGroup
	for i, h := range on {
		all.Go(func() { errs[i] = h.makeSSH(o, key) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		hs.t.Fatal(err)
	}
	for _, h := range on {
		h.sshd.WaitForOutput("Server listening")
		h.Snapshot()
	}
}

func (h *Host) makeSSH(o SSHD, key string) error {
	o = o.withDefaults()
	if err := h.prepareMachine(o, key); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	if err := h.makeHostKeys(); err != nil {
		return err
	}
	if err := os.WriteFile(h.sshdConfig(), []byte(h.sshdText()), 0o600); err != nil {
		return err
	}
	if err := h.applyMachineFiles(); err != nil {
		return err
	}
	return h.startSSH()
}

func (o SSHD) withDefaults() SSHD {
	if o.Port == 0 {
		o.Port = 22
	}
	if o.HostKeys == nil {
		o.HostKeys = []string{"ed25519"}
	}
	if o.Users == nil {
		o.Users = []User{{}}
	}
	return o
}

func (h *Host) sshdConfig() string             { return filepath.Join(h.etc(), "sshd_config") }
func (h *Host) hostKeyFile(kind string) string { return filepath.Join(h.etc(), "host_key_"+kind) }

// sshdText returns the host's sshd_config(5). Without PAM, sshd itself reads the host's shadow
// file.
func (h *Host) sshdText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nPort %d\n", h.machine.Config, h.machine.Port)
	for _, kind := range h.machine.HostKeys {
		fmt.Fprintf(&b, "HostKey %s\n", h.hostKeyFile(kind))
	}
	passwords := "no"
	for _, u := range h.machine.Users {
		if u.Password != "" {
			passwords = "yes"
		}
	}
	fmt.Fprintf(&b,
		"PasswordAuthentication %s\nPermitRootLogin yes\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n",
		passwords)
	b.WriteString("PidFile none\nPrintMotd no\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp\n")
	return b.String()
}

func (h *Host) makeHostKeys() error {
	for _, kind := range h.machine.HostKeys {
		if err := makeKey(h.hostKeyFile(kind), kind, ""); err != nil {
			return err
		}
	}
	return nil
}

// startSSH starts the server. The server serves once it says so.
func (h *Host) startSSH() error {
	path, err := sshdPath()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "-D", "-e", "-f", h.sshdConfig())
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	h.sshd = h.StartCommand(cmd)
	return nil
}

// StartSSH undoes StopSSH.
func (h *Host) StartSSH() {
	h.harness.t.Helper()
	if err := h.startSSH(); err != nil {
		h.harness.t.Fatalf("%s: %v", h.Name, err)
	}
	h.sshd.WaitForOutput("Server listening")
}

// StopSSH ends the server, so that the port is closed. Users who have logged in stay logged in.
func (h *Host) StopSSH() { h.sshd.Kill() }

// SSHLog returns the server's log, with the reasons that it does not tell its clients.
func (h *Host) SSHLog() string { return h.sshd.Output() }

// NewHostKey gives the host new host keys, as if the machine had been reinstalled.
func (h *Host) NewHostKey() {
	h.harness.t.Helper()
	h.StopSSH()
	if err := h.makeHostKeys(); err != nil {
		h.harness.t.Fatal(err)
	}
	h.StartSSH()
}

// HostKeys returns the public halves of the host's keys, as in "ssh-ed25519 AAAA…".
func (h *Host) HostKeys() []string {
	h.harness.t.Helper()
	var keys []string
	for _, kind := range h.machine.HostKeys {
		text, err := os.ReadFile(h.hostKeyFile(kind) + ".pub")
		if err != nil {
			h.harness.t.Fatal(err)
		}
		keys = append(keys, keyText(text))
	}
	return keys
}

// HostKeyPrint returns the fingerprint of the host's key of a type, as ssh shows it: "SHA256:…".
func (h *Host) HostKeyPrint(kind string) string {
	h.harness.t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", h.hostKeyFile(kind)).Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1]
	}
	h.harness.t.Fatalf("read the host key of %s: %v", h.Name, err)
	return ""
}
