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
	Ahead    time.Duration     // how far the clock is ahead according to `date`; Clock.SetOffset sets mlfnode's clock
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

// SSHServer is OpenSSH's server on a host.
type SSHServer struct {
	host *Host
	proc *Proc // nil until it is installed
}

// Install makes the host a machine of its own, see machine.apply, and starts OpenSSH's server
// there. Each Boot repeats both.
func (s *SSHServer) Install(o SSHD) { s.host.harness.InstallSSH(o, s.host) }

// InstallSSH installs OpenSSH's server on all these hosts, concurrently.
func (hs *Harness) InstallSSH(o SSHD, on ...*Host) {
	hs.t.Helper()
	if _, err := sshdPath(); err != nil {
		gridtest.Program(hs.t, "sshd")
	}
	key := hs.publicKey()
	errs := make([]error, len(on))
	var all sync.WaitGroup
	for i, h := range on {
		all.Go(func() { errs[i] = h.SSH.install(o, key) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		hs.t.Fatal(err)
	}
	for _, h := range on {
		h.SSH.proc.WaitForOutput("Server listening")
		h.Files.Snapshot()
	}
}

func (s *SSHServer) install(o SSHD, key string) error {
	o = o.withDefaults()
	if err := prepareMachine(s.host, o, key); err != nil {
		return fmt.Errorf("%s: %w", s.host.Name, err)
	}
	if err := s.makeHostKeys(); err != nil {
		return err
	}
	if err := os.WriteFile(s.configFile(), []byte(s.configText()), 0o600); err != nil {
		return err
	}
	if err := s.host.machine.apply(); err != nil {
		return err
	}
	return s.start()
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

func (s *SSHServer) configFile() string { return filepath.Join(s.host.etc(), "sshd_config") }
func (s *SSHServer) hostKeyFile(kind string) string {
	return filepath.Join(s.host.etc(), "host_key_"+kind)
}

// configText returns the host's sshd_config(5). Without PAM, sshd itself reads the host's shadow
// file.
func (s *SSHServer) configText() string {
	var b strings.Builder
	o := s.host.machine.options
	fmt.Fprintf(&b, "%s\nPort %d\n", o.Config, o.Port)
	for _, kind := range o.HostKeys {
		fmt.Fprintf(&b, "HostKey %s\n", s.hostKeyFile(kind))
	}
	passwords := "no"
	for _, u := range o.Users {
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

func (s *SSHServer) makeHostKeys() error {
	for _, kind := range s.host.machine.options.HostKeys {
		if err := makeKey(s.hostKeyFile(kind), kind, ""); err != nil {
			return err
		}
	}
	return nil
}

// start starts the server. The server serves once it says so.
func (s *SSHServer) start() error {
	path, err := sshdPath()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "-D", "-e", "-f", s.configFile())
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	s.proc = s.host.StartCommand(cmd)
	return nil
}

// Start undoes Stop.
func (s *SSHServer) Start() {
	s.host.harness.t.Helper()
	if err := s.start(); err != nil {
		s.host.harness.t.Fatalf("%s: %v", s.host.Name, err)
	}
	s.proc.WaitForOutput("Server listening")
}

// Stop ends the server, so that the port is closed. Users who have logged in stay logged in.
func (s *SSHServer) Stop() { s.proc.Kill() }

// Log returns the server's log, with the reasons that it does not tell its clients.
func (s *SSHServer) Log() string { return s.proc.Output() }

// ReplaceHostKeys gives the host new host keys, as if the machine had been reinstalled.
func (s *SSHServer) ReplaceHostKeys() {
	s.host.harness.t.Helper()
	s.Stop()
	if err := s.makeHostKeys(); err != nil {
		s.host.harness.t.Fatal(err)
	}
	s.Start()
}

// HostKeys returns the public halves of the host's keys, as in "ssh-ed25519 AAAA…".
func (s *SSHServer) HostKeys() []string {
	s.host.harness.t.Helper()
	var keys []string
	for _, kind := range s.host.machine.options.HostKeys {
		text, err := os.ReadFile(s.hostKeyFile(kind) + ".pub")
		if err != nil {
			s.host.harness.t.Fatal(err)
		}
		keys = append(keys, keyText(text))
	}
	return keys
}

// Fingerprint returns the fingerprint of the host's key of a type, as ssh shows it: "SHA256:…".
func (s *SSHServer) Fingerprint(kind string) string {
	s.host.harness.t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", s.hostKeyFile(kind)).Output()
	if fields := strings.Fields(string(out)); err == nil && len(fields) > 1 {
		return fields[1]
	}
	s.host.harness.t.Fatalf("read the host key of %s: %v", s.host.Name, err)
	return ""
}
