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

// DefaultUser has an account on every host whose SSHD names nobody, and is who works on a laptop.
const DefaultUser = "ada"

// SSHD says what a host is like for those who log in over ssh. The zero value is an ordinary machine: port 22, an Ed25519 host
// key, the account of DefaultUser with bash, which takes the harness's key, and sudo, which that account may not use.
type SSHD struct {
	Port     int               // 22 where it is 0
	HostKeys []string          // of ed25519, rsa, ecdsa; ed25519 where it is nil
	Config   string            // more lines of sshd_config, before all others, so that they win
	Users    []User            // who has an account; root has one in any case
	NoSudo   bool              // sudo is not installed
	Programs map[string]string // what programs of these names do instead: scripts, with their first line
	Missing  []string          // names of programs that are not installed
	Machine  string            // what `uname -m` says, as in "aarch64"; empty for the truth
	Ahead    time.Duration     // how far the clock is ahead by what `date` says; Host.ClockJump sets that of mlfnode
	System   string            // what `uname -s` says, as in "FreeBSD"; empty for the truth
}

// sshdPath gives OpenSSH's server, which must be started by its full path and is not on everybody's PATH.
func sshdPath() (string, error) {
	for _, name := range []string{"sshd", "/usr/sbin/sshd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("sshd is not installed")
}

// SSH makes the host a machine of its own, see Host.settle, and starts OpenSSH's server there. Both are done again at each Boot.
func (h *Host) SSH(o SSHD) { h.harness.SSH(o, h) }

// SSH starts OpenSSH's server on all these hosts, side by side.
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

// sshdText is sshd_config(5). Without PAM, sshd itself looks at the host's shadow file.
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
	fmt.Fprintf(&b, "PasswordAuthentication %s\nPermitRootLogin yes\nKbdInteractiveAuthentication no\nUsePAM no\nUseDNS no\n", passwords)
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

// startSSH starts the server. It serves once it says so.
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

// StartSSH is the way back from StopSSH.
func (h *Host) StartSSH() {
	h.harness.t.Helper()
	if err := h.startSSH(); err != nil {
		h.harness.t.Fatalf("%s: %v", h.Name, err)
	}
	h.sshd.WaitForOutput("Server listening")
}

// StopSSH ends the server, so that the port is closed. Who has logged in stays.
func (h *Host) StopSSH() { h.sshd.Kill() }

// SSHLog is what the server has said, with the reasons that it does not tell its clients.
func (h *Host) SSHLog() string { return h.sshd.Output() }

// NewHostKey gives the host new host keys, as a reinstalled machine has.
func (h *Host) NewHostKey() {
	h.harness.t.Helper()
	h.StopSSH()
	if err := h.makeHostKeys(); err != nil {
		h.harness.t.Fatal(err)
	}
	h.StartSSH()
}

// HostKeys gives the public halves of the host's keys, as in "ssh-ed25519 AAAA…".
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

// HostKeyPrint gives the fingerprint of the host's key of a kind, as ssh shows it: "SHA256:…".
func (h *Host) HostKeyPrint(kind string) string {
	h.harness.t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", h.hostKeyFile(kind)).Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1]
	}
	h.harness.t.Fatalf("read the host key of %s: %v", h.Name, err)
	return ""
}
