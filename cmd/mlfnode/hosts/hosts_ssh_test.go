package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ssh runs OpenSSH's client on the laptop, without prompting anybody.
func ssh(from *Laptop, args ...string) Result { return sshWithin(from, Timeout, args...) }

// sshWithin is like ssh for a host that may not answer.
func sshWithin(from *Laptop, limit time.Duration, args ...string) Result {
	connect := fmt.Sprintf("ConnectTimeout=%d", int(limit.Seconds()))
	return from.Run(from.Program("ssh", append([]string{"-o", "BatchMode=yes", "-o", connect}, args...)...))
}

func TestLogins(t *testing.T) {
	s := New(t, 11, Options{})
	laptop := s.Laptop("laptop")
	tests := []struct {
		name    string
		host    SSHD
		to      []string // arguments of ssh after the host's name; USER@ comes before it
		user    string
		code    int
		said    string // the output
		refused string // a part of what was written to standard error
	}{
		{name: "ordinary", to: []string{"id -un; uname -sm; echo $0 $HOME; pwd"},
			said: "ada\nLinux x86_64\nbash HOME\nHOME\n"},
		{name: "banner shell",
			host: SSHD{Users: []User{{ShellScript: "#!/bin/sh\necho Welcome!\nexec /bin/bash \"$@\"\n"}}},
			to:   []string{"echo in"}, said: "Welcome!\nin\n"},
		{name: "start-up file", host: SSHD{Users: []User{{StartUp: "echo noise"}}}, to: []string{"echo in"},
			said: "noise\nin\n"},
		{name: "dash", host: SSHD{Users: []User{{Name: "bob", Shell: "/bin/dash", StartUp: "echo noise"}}},
			user: "bob", to: []string{"echo $0"}, said: "dash\n"},
		{name: "nologin", host: SSHD{Users: []User{{Shell: "/usr/sbin/nologin"}}}, to: []string{"true"}, code: 1,
			said: "This account is currently not available.\n"},
		{name: "root", user: "root",
			to:   []string{"id -u; cat /etc/shadow | wc -l; touch /etc/x /usr/bin/x && ls /etc/x"},
			said: "0\n5\n/etc/x\n"},
		{name: "other kind", host: SSHD{Machine: "aarch64", System: "FreeBSD"},
			to: []string{"uname -sm; uname -m; /bin/uname -s"}, said: "FreeBSD aarch64\naarch64\nLinux\n"},
		{name: "stand-ins", host: SSHD{NoSudo: true, Missing: []string{"tar"},
			Programs: map[string]string{"nvidia-smi": "#!/bin/sh\necho GPU\n"}},
			to: []string{"nvidia-smi; command -v sudo tar; true"}, said: "GPU\n"},
		{name: "clock", host: SSHD{Ahead: 365 * 24 * time.Hour},
			to: []string{"test $(date +%s) -gt $(($(/usr/bin/date +%s) + 31000000)) && echo ahead"}, said: "ahead\n"},
		{name: "no key", host: SSHD{Users: []User{{Keys: []string{}}}}, to: []string{"true"}, code: 255,
			refused: "Permission denied (publickey)"},
		{name: "other port", host: SSHD{Port: 2222, HostKeys: []string{"rsa", "ecdsa"}, Config: "Banner /etc/hosts"},
			to: []string{"-p", "2222", "cat .ssh/authorized_keys | wc -l"}, said: "1\n", refused: "localhost"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := s.Hosts[i]
			h.SSH.Install(test.host)
			laptop.Trust(h)
			user := firstNonEmpty(test.user, DefaultUser)
			r := ssh(laptop, append([]string{user + "@" + h.Name}, test.to...)...)
			want := strings.ReplaceAll(test.said, "HOME", h.Accounts.Home(user))
			if r.Code != test.code || r.Stdout != want || !strings.Contains(r.Stderr, test.refused) {
				t.Errorf("got exit code %d\n%q\n%q\nwant %d\n%q\n%q; the server says\n%s", r.Code, r.Stdout, r.Stderr,
					test.code, want, test.refused, h.SSH.Log())
			}
			WaitFor(t, Timeout, func() error { return nothing(h.Processes.Leftovers()) })
		})
	}
	if r := s.Hosts[0].Run(exec.Command("ls", "/etc/x")); r.Code == 0 {
		t.Error("what one host writes to /etc is seen by another one")
	}
}

func nothing(left []Process) error {
	if len(left) > 0 {
		return fmt.Errorf("left on the host: %v", left)
	}
	return nil
}

func TestHomesOfLogins(t *testing.T) {
	s := New(t, 3, Options{})
	laptop := s.Laptop("laptop")
	for i, test := range []struct {
		user    User
		to      string
		refused string
	}{
		{User{HomeMount: "ro"}, "echo x >file", "Read-only file system"},
		{User{HomeSize: "1m", HomeFull: true}, "echo x >file", "No space left on device"},
		{User{HomeMount: "noexec"}, "cp /bin/true . && ./true", "Permission denied"},
	} {
		h := s.Hosts[i]
		h.SSH.Install(SSHD{Users: []User{test.user}})
		laptop.Trust(h)
		r := ssh(laptop, h.Name, test.to)
		if r.Code == 0 || !strings.Contains(r.Stderr, test.refused) {
			t.Errorf("%+v: got exit code %d, %q, want %q", test.user, r.Code, r.Stderr, test.refused)
		}
	}
}

func TestSudo(t *testing.T) {
	s := New(t, 1, Options{})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{Users: []User{{Sudo: SudoFreely},
		{Name: "bob", Password: "secret", Sudo: SudoByPassword}, {Name: "eve"}}})
	laptop.Trust(h)
	for _, test := range []struct{ to, program, said string }{
		{"ada@host1", "sudo -n id -u", "0\n"},
		{"bob@host1", "sudo -n id -u || echo no", "no\n"},
		{"bob@host1", "echo secret | sudo -S id -u", "0\n"},
		{"bob@host1", "echo wrong | sudo -S id -u || echo no", "no\n"},
		{"eve@host1", "sudo -n id -u || echo no", "no\n"},
		{"eve@host1", "cat /etc/shadow " + h.Accounts.Home("bob") + "/.profile || echo no", "no\n"},
	} {
		if r := ssh(laptop, test.to, test.program); r.Stdout != test.said {
			t.Errorf("%s: %s: got %q, %q, want %q", test.to, test.program, r.Stdout, r.Stderr, test.said)
		}
	}
}

// TestLoginsOnATerminal answers on a terminal what ssh asks its user: whether this is the right
// machine, a passphrase, a password.
func TestLoginsOnATerminal(t *testing.T) {
	s := New(t, 2, Options{})
	laptop := s.Laptop("laptop")
	locked := laptop.NewKey("locked", "ed25519", "open sesame")
	s.Hosts[0].SSH.Install(SSHD{Users: []User{{Keys: []string{locked}}}})
	s.Hosts[1].SSH.Install(SSHD{Users: []User{{Keys: []string{}, Password: "secret"}}})
	term := laptop.OnTerminal(laptop.Program("ssh", "-i", laptop.Accounts.Home(DefaultUser)+"/.ssh/locked",
		"host1", "echo well"))
	term.Expect(s.Hosts[0].SSH.Fingerprint("ed25519"))
	term.Expect("(yes/no")
	term.Type("yes")
	term.Expect("Enter passphrase")
	term.Type("open sesame")
	if code, screen := term.Close(Timeout); code != 0 || !strings.Contains(screen, "\nwell\n") {
		t.Errorf("with a passphrase: got exit code %d\n%s", code, screen)
	}
	term = laptop.OnTerminal(laptop.Program("ssh", "-o", "StrictHostKeyChecking=accept-new", "host2"))
	term.Expect("password:")
	term.Type("wrong")
	term.Expect("password:")
	term.Type("secret")
	term.Expect("$ ")
	term.Type("echo $((6*7)); tty; exit 3")
	term.Expect("42\n/dev/pts/")
	if code, screen := term.Close(Timeout); code != 3 {
		t.Errorf("with a password: got exit code %d, want 3\n%s", code, screen)
	}
}

// TestProgramOnALaptop checks that the user of the laptop has the program under test, and that the
// users of the hosts see neither that program nor each other's machines.
func TestProgramOnALaptop(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $(id -un) in $PWD with ${SSH_AUTH_SOCK-nothing}: \"$@\"\n"),
		0o755); err != nil {
		t.Fatal(err)
	}
	s := New(t, 1, Options{Program: program})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{})
	laptop.Trust()
	want := "ada in " + laptop.Accounts.Home(DefaultUser) + " with nothing: up now\n"
	if got := laptop.Must("up", "now"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := laptop.Run(laptop.Program("/bin/sh", "-c", "mlfnode up now")); r.Stdout != want {
		t.Errorf("by its name: got %q, %q", r.Stdout, r.Stderr)
	}
	r := ssh(laptop, h.Name, "ls /tmp; cat "+program+" "+h.etc()+"/mlfnode "+laptop.Accounts.Home(DefaultUser)+
		"/.ssh/id_ed25519; ls /run/systemd")
	if r.Code == 0 || r.Stdout != filepath.Base(s.Dir)+"\n" {
		t.Errorf("a user of the host sees %q, %q", r.Stdout, r.Stderr)
	}
}

func TestKeyAgent(t *testing.T) {
	s := New(t, 1, Options{})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{Users: []User{{Keys: []string{laptop.NewKey("other", "rsa", "")}}}})
	laptop.Trust()
	if r := ssh(laptop, h.Name, "true"); r.Code != 255 {
		t.Fatalf("without the agent: got exit code %d, want 255", r.Code)
	}
	cmd := laptop.Program("ssh", h.Name, "true")
	cmd.Env = append(cmd.Env, "SSH_AUTH_SOCK="+laptop.StartKeyAgent("other"))
	if r := laptop.Run(cmd); r.Code != 0 {
		t.Errorf("got exit code %d, %q", r.Code, r.Stderr)
	}
}

// TestMaxStartups checks that a server accepts only a limited number of unfinished logins at a
// time.
func TestMaxStartups(t *testing.T) {
	s := New(t, 1, Options{})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{Config: "MaxStartups 2"})
	laptop.Trust()
	for range 2 {
		c, err := laptop.Network.Dial("tcp", h.Addr+":22")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if r := ssh(laptop, h.Name, "true"); r.Code != 255 || !strings.Contains(r.Stderr, "kex_exchange_identification") {
		t.Errorf("got exit code %d, %q", r.Code, r.Stderr)
	}
}

func TestHostKeyChanges(t *testing.T) {
	s := New(t, 1, Options{})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{})
	laptop.Trust(h)
	if r := ssh(laptop, h.Name, "true"); r.Code != 0 {
		t.Fatalf("got %q", r.Stderr)
	}
	h.SSH.ReplaceHostKeys()
	if r := ssh(laptop, h.Name, "true"); r.Code != 255 ||
		!strings.Contains(r.Stderr, "REMOTE HOST IDENTIFICATION HAS CHANGED") {
		t.Errorf("with a new host key: got %d, %q", r.Code, r.Stderr)
	}
	laptop.Trust(h)
	h.PowerCut()
	h.Boot()
	if r := ssh(laptop, h.Name, "true"); r.Code != 0 {
		t.Errorf("after a reboot: got %q", r.Stderr)
	}
	h.SSH.Stop()
	if r := ssh(laptop, h.Name, "true"); r.Code != 255 || !strings.Contains(r.Stderr, "Connection refused") {
		t.Errorf("without a server: got %d, %q", r.Code, r.Stderr)
	}
}

func TestFirewallAndJump(t *testing.T) {
	s := New(t, 3, Options{})
	laptop, far, jump, hung := s.Laptop("laptop"), s.Hosts[0], s.Hosts[1], s.Hosts[2]
	s.InstallSSH(SSHD{}, far, jump)
	hung.Network.OccupyPort(22)
	laptop.Trust(far, jump)
	goes := func(want bool, args ...string) {
		t.Helper()
		limit := Timeout
		if !want {
			limit = time.Second
		}
		if r := sshWithin(laptop, limit, append(args, "true")...); (r.Code == 0) != want {
			t.Errorf("ssh %v: got exit code %d, %q, want a login: %v", args, r.Code, r.Stderr, want)
		}
	}
	laptop.Network.Block(far, "tcp", 22)
	goes(false, far.Name)
	goes(true, jump.Name)
	laptop.Network.Unblock(far, "tcp", 22)
	goes(true, far.Name)
	far.Network.Block(nil, "udp", 22)
	goes(true, far.Name)
	laptop.Network.Partition(far)
	goes(false, far.Name)
	goes(true, "-J", jump.Name, far.Name)
	laptop.WriteFile(".ssh/config", "Host far\n HostName "+far.Name+"\n ProxyJump "+jump.Name+"\n")
	goes(true, "far")
	goes(false, hung.Name)
}

func TestWhatLoginsLeave(t *testing.T) {
	s := New(t, 1, Options{})
	laptop, h := s.Laptop("laptop"), s.Hosts[0]
	h.SSH.Install(SSHD{Users: []User{{Sudo: SudoFreely, StartUp: ":"}}})
	laptop.Trust(h)
	if changed, left := h.Files.Changes(), h.Processes.Leftovers(); len(changed)+len(left) > 0 {
		t.Errorf("before a login: got %v, %v, want nothing", changed, left)
	}
	r := ssh(laptop, h.Name, `mkdir -p mlfnode/bin; echo x >mlfnode/bin/x; echo x >.profile; rm .bashrc; touch /tmp/a /var/tmp/b; chmod 600 .ssh
sudo sh -c 'touch /etc/systemd/system/c; rm /usr/bin/tar; echo x >>/etc/issue; mkdir /opt/d'; setsid sleep 300 >/dev/null 2>&1 </dev/null &`)
	if r.Code != 0 {
		t.Fatalf("got %q", r.Stderr)
	}
	home := h.Accounts.Home(DefaultUser)
	want := []string{"removed " + home + "/.bashrc", "changed " + home + "/.profile", "made /etc/systemd/system/c",
		"made /tmp/a", "removed /usr/bin/tar", "changed /etc/issue", "made /opt/d",
		"changed " + home + "/.ssh", "made /var/tmp/b"}
	var got []string
	WaitFor(t, Timeout, func() error {
		got = h.Files.Changes(home + "/mlfnode")
		if left := h.Processes.Leftovers(); len(left) != 1 || left[0].Command != "sleep 300" {
			return fmt.Errorf("left on the host: %v, want sleep 300", left)
		}
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if got := fmt.Sprint(h.Network.Listening()); got != "[tcp 22]" {
		t.Errorf("got ports %s, want tcp 22", got)
	}
}

func TestManyHostsWithSSH(t *testing.T) {
	began := time.Now()
	s := New(t, 21, Options{})
	booted := time.Since(began)
	s.InstallSSH(SSHD{}, s.Hosts...)
	laptop := s.Laptop("laptop")
	laptop.Trust()
	t.Logf("21 hosts after %v, with sshd after %v", booted, time.Since(began))
	for _, h := range s.Hosts[:21] {
		if r := ssh(laptop, h.Name, "hostname"); r.Stdout != h.Name+"\n" {
			t.Errorf("%s: got %q, %q", h.Name, r.Stdout, r.Stderr)
		}
	}
}
