package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"mlfnode/grid/gridtest"
)

// Laptop adds a host outside the cluster on which DefaultUser works: its commands run as that user,
// whose home has the harness's key pair as ~/.ssh/id_ed25519 and an empty list of known hosts.
// mlfnode is in its PATH. There is no ssh agent.
func (hs *Harness) Laptop(name string) *Host {
	hs.t.Helper()
	gridtest.Program(hs.t, "ssh")
	key := hs.publicKey()
	h := hs.AddHost(name)
	if err := h.prepareMachine(SSHD{}.withDefaults(), key); err != nil {
		hs.t.Fatal(err)
	}
	if err := os.Chmod(h.etc(), 0o711); err != nil { // it contains the program under test
		hs.t.Fatal(err)
	}
	if err := h.applyMachineFiles(); err != nil {
		hs.t.Fatal(err)
	}
	h.user = DefaultUser
	for _, ending := range []string{"", ".pub"} {
		text, err := os.ReadFile(hs.keyFile() + ending)
		if err != nil {
			hs.t.Fatal(err)
		}
		h.WriteFile(".ssh/id_ed25519"+ending, string(text))
	}
	h.Snapshot()
	return h
}

func (hs *Harness) keyFile() string { return filepath.Join(hs.Dir, "key") }

// publicKey returns the public half of the harness's own key, which it makes on the first call.
func (hs *Harness) publicKey() string {
	hs.t.Helper()
	gridtest.Program(hs.t, "ssh-keygen")
	if _, err := os.Stat(hs.keyFile()); err != nil {
		if err := makeKey(hs.keyFile(), "ed25519", ""); err != nil {
			hs.t.Fatal(err)
		}
	}
	text, err := os.ReadFile(hs.keyFile() + ".pub")
	if err != nil {
		hs.t.Fatal(err)
	}
	return keyText(text)
}

// makeKey writes a new key pair to a file and to that name with .pub, replacing existing files.
func makeKey(file, kind, passphrase string) error {
	for _, old := range []string{file, file + ".pub"} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	// Use few rounds, since the passphrase protects nothing here.
	keygen := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-a", "1", "-C", "", "-f", file)
	out, err := keygen.CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a key: %w\n%s", err, out)
	}
	return nil
}

// keyText returns the type and the key from a line of a .pub file, without the comment.
func keyText(line []byte) string {
	fields := strings.Fields(string(line))
	return strings.Join(fields[:min(2, len(fields))], " ")
}

// WriteFile writes a file in the home of the laptop's user, readable only by that user.
func (h *Host) WriteFile(name, content string) {
	h.harness.t.Helper()
	path := filepath.Join(h.UserHome(h.user), name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err == nil {
		err = h.chown(h.user, h.UserHome(h.user))
	}
	if err != nil {
		h.harness.t.Fatal(err)
	}
}

// NewKey makes a key pair of a type as ~/.ssh/name on a laptop, protected by the passphrase if
// there is one, and returns its public half.
func (h *Host) NewKey(name, kind, passphrase string) string {
	h.harness.t.Helper()
	path := filepath.Join(h.UserHome(h.user), ".ssh", name)
	if err := makeKey(path, kind, passphrase); err != nil {
		h.harness.t.Fatal(err)
	}
	if err := h.chown(h.user, filepath.Dir(path)); err != nil {
		h.harness.t.Fatal(err)
	}
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		h.harness.t.Fatal(err)
	}
	return keyText(text)
}

// KeyAgent starts an ssh agent on a laptop with the keys of these names in ~/.ssh, and returns the
// value of SSH_AUTH_SOCK for commands that should use it.
func (h *Host) KeyAgent(names ...string) (socket string) {
	h.harness.t.Helper()
	home := h.UserHome(h.user)
	socket = filepath.Join(home, ".ssh", "agent")
	h.StartCommand(h.Program("ssh-agent", "-D", "-a", socket))
	WaitFor(h.harness.t, Patience, func() error { _, err := os.Stat(socket); return err })
	for _, name := range names {
		cmd := h.Program("ssh-add", filepath.Join(home, ".ssh", name))
		cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+socket)
		if r := h.Run(cmd); r.Code != 0 {
			h.harness.t.Fatalf("add a key to the agent: %s", r.Stderr)
		}
	}
	return socket
}

// Trust writes the true keys of the hosts, and of no others, to the laptop's ~/.ssh/known_hosts, by
// name and by address. Without hosts it writes the keys of all hosts that have a server.
func (hs *Harness) Trust(laptop *Host, of ...*Host) {
	hs.t.Helper()
	if len(of) == 0 {
		of = hs.Hosts
	}
	var b strings.Builder
	for _, h := range of {
		if h.sshd == nil {
			continue
		}
		names := h.Name + "," + h.Addr
		if port := h.machine.Port; port != 22 {
			names = fmt.Sprintf("[%s]:%d,[%s]:%[2]d", h.Name, port, h.Addr)
		}
		for _, key := range h.HostKeys() {
			fmt.Fprintf(&b, "%s %s\n", names, key)
		}
	}
	laptop.WriteFile(".ssh/known_hosts", b.String())
}

// As makes a command run as a user of the host, in that user's home and with the environment of a
// login.
func (h *Host) As(user string, cmd *exec.Cmd) *exec.Cmd {
	h.harness.t.Helper()
	uid, err := h.uid(user)
	if err != nil {
		h.harness.t.Fatal(err)
	}
	home := h.UserHome(user)
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home, "USER=" + user, "LOGNAME=" + user, "SHELL=/bin/bash", "LANG=C.UTF-8", "TERM=xterm",
		"PATH=/usr/local/bin:/usr/bin:/bin:" + h.etc(), "NO_COLOR=1",
	}, h.harness.options.Env...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	return cmd
}
