package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/grid/gridtest"
)

// Laptop is a host on which DefaultUser works.
type Laptop struct{ *Host }

// Laptop adds a host outside the cluster on which DefaultUser works: its commands run as that user,
// whose home has the harness's key pair as ~/.ssh/id_ed25519 and an empty list of known hosts.
// mlfnode is in its PATH. There is no ssh agent.
func (hs *Harness) Laptop(name string) *Laptop {
	hs.t.Helper()
	gridtest.Program(hs.t, "ssh")
	key := hs.publicKey()
	l := &Laptop{hs.AddHost(name)}
	if err := prepareMachine(l.Host, SSHD{}.withDefaults(), key); err != nil {
		hs.t.Fatal(err)
	}
	if err := os.Chmod(l.etc(), 0o711); err != nil { // it contains the program under test
		hs.t.Fatal(err)
	}
	if err := l.machine.apply(); err != nil {
		hs.t.Fatal(err)
	}
	l.user = DefaultUser
	for _, ending := range []string{"", ".pub"} {
		text, err := os.ReadFile(hs.keyFile() + ending)
		if err != nil {
			hs.t.Fatal(err)
		}
		l.WriteFile(".ssh/id_ed25519"+ending, string(text))
	}
	l.Files.Snapshot()
	return l
}

func (l *Laptop) home() string { return l.Accounts.Home(DefaultUser) }

// WriteFile writes a file in the home of the laptop's user, readable only by that user.
func (l *Laptop) WriteFile(name, content string) {
	l.harness.t.Helper()
	path := filepath.Join(l.home(), name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err == nil {
		err = l.Accounts.chown(DefaultUser, l.home())
	}
	if err != nil {
		l.harness.t.Fatal(err)
	}
}

// NewKey makes a key pair of a type as ~/.ssh/name on a laptop, protected by the passphrase if
// there is one, and returns its public half.
func (l *Laptop) NewKey(name, kind, passphrase string) string {
	l.harness.t.Helper()
	path := filepath.Join(l.home(), ".ssh", name)
	if err := makeKey(path, kind, passphrase); err != nil {
		l.harness.t.Fatal(err)
	}
	if err := l.Accounts.chown(DefaultUser, filepath.Dir(path)); err != nil {
		l.harness.t.Fatal(err)
	}
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		l.harness.t.Fatal(err)
	}
	return keyText(text)
}

// StartKeyAgent starts an ssh agent on a laptop with the keys of these names in ~/.ssh, and returns
// the value of SSH_AUTH_SOCK for commands that should use it.
func (l *Laptop) StartKeyAgent(names ...string) (socket string) {
	l.harness.t.Helper()
	home := l.home()
	socket = filepath.Join(home, ".ssh", "agent")
	l.StartCommand(l.Program("ssh-agent", "-D", "-a", socket))
	WaitFor(l.harness.t, Timeout, func() error { _, err := os.Stat(socket); return err })
	for _, name := range names {
		cmd := l.Program("ssh-add", filepath.Join(home, ".ssh", name))
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
		if r := l.Run(cmd); r.Code != 0 {
			l.harness.t.Fatalf("add a key to the agent: %s", r.Stderr)
		}
	}
	return socket
}

// Trust writes the true keys of the hosts, and of no others, to the laptop's ~/.ssh/known_hosts, by
// name and by address. Without hosts it writes the keys of all hosts that have a server.
func (l *Laptop) Trust(of ...*Host) {
	l.harness.t.Helper()
	if len(of) == 0 {
		of = l.harness.Hosts
	}
	var b strings.Builder
	for _, h := range of {
		if h.SSH.proc == nil {
			continue
		}
		names := h.Name + "," + h.Addr
		if port := h.machine.options.Port; port != 22 {
			names = fmt.Sprintf("[%s]:%d,[%s]:%[2]d", h.Name, port, h.Addr)
		}
		for _, key := range h.SSH.HostKeys() {
			fmt.Fprintf(&b, "%s %s\n", names, key)
		}
	}
	l.WriteFile(".ssh/known_hosts", b.String())
}
