package shell

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The configuration says which ways to be let in are tried, and in which order.
func TestMethods(t *testing.T) {
	d := func(text string) []string {
		config := filepath.Join(t.TempDir(), "config")
		write(t, config, text)
		r, err := dialer(t, Options{ConfigFile: config}).route(Target{Host: "gpu1"})
		if err != nil {
			t.Fatal(err)
		}
		return r.methods
	}
	for text, want := range map[string][]string{
		"": {"publickey", "password", "keyboard-interactive"},
		"PreferredAuthentications gssapi-with-mic,keyboard-interactive,publickey": {"keyboard-interactive",
			"publickey"},
		"PreferredAuthentications password,publickey\nPubkeyAuthentication no": {"password"},
		"PasswordAuthentication no\nPasswordAuthentication yes": {"publickey",
			"keyboard-interactive"},
		"KbdInteractiveAuthentication no\nPubkeyAuthentication unbound": {"publickey", "password"},
		"ChallengeResponseAuthentication no":                            {"publickey", "password"},
		"Host other\nPasswordAuthentication no": {"publickey", "password",
			"keyboard-interactive"},
	} {
		if got := d(text); !slices.Equal(got, want) {
			t.Errorf("%q: methods %q; want %q", text, got, want)
		}
	}
}

// A server sees no more than what is allowed, and a user is told when that is nothing.
func TestMethodsObeyed(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	byPassword := sshdByPassword(t, "secret", "MaxAuthTries 1")
	for _, tt := range []struct {
		name   string
		s      *server
		config string
		want   string
		asked  int
	}{
		{"keys off", s, "PubkeyAuthentication no", "did not take the password of root", passwordTries},
		{"password first", s, "PreferredAuthentications password,publickey", "", passwordTries},
		{"passwords off", byPassword, "PasswordAuthentication no",
			fmt.Sprintf(
				"%s takes password, and of the ways to be let in ssh's configuration allows publickey, keyboard-interactive",
				byPassword.address()), 0},
		{"keys off, password", byPassword, "PubkeyAuthentication no", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("SSH_AUTH_SOCK", "")
			config := filepath.Join(t.TempDir(), "config")
			write(t, config, "Host *\n"+tt.config+"\n")
			asked := &person{secret: "secret"}
			dialed(t, Options{ConfigFile: config, Key: tt.s.key, KnownHosts: tt.s.know("ed25519"), Prompt: asked}, tt.s,
				tt.want)
			if len(asked.asked) != tt.asked {
				t.Errorf("asked %q; want %d questions", asked.asked, tt.asked)
			}
		})
	}
}

// What OpenSSH's client could have used and this one can't is named to somebody who was not let in,
// and to nobody else.
func TestWaysBeyondOurs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "open")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const all = "GSSAPIAuthentication yes\nHostbasedAuthentication yes\nPKCS11Provider /lib/card.so\n"
	for _, c := range []struct {
		text  string
		taken []string
		cause string
		cure  string
	}{
		{"", []string{"gssapi-with-mic", "publickey", "hostbased"}, "", ""},
		{all, []string{"password"}, "", ""},
		{all, []string{"gssapi-with-mic"},
			"ssh itself may use Kerberos (GSSAPIAuthentication), which mlfnode can't", ""},
		{all, []string{"publickey", "hostbased"},
			"the key of this machine (HostbasedAuthentication) and the keys of a card (PKCS11Provider)",
			"ssh-add -s '/lib/card.so'"},
		{"ControlPath " + socket, []string{"password"}, "the connection that is open already (ControlPath)", ""},
		{"ControlMaster auto\nControlPath " + socket + "-other", []string{"password"}, "", ""},
		{"ControlPath none\nPKCS11Provider none", []string{"publickey"}, "", ""},
	} {
		file := filepath.Join(t.TempDir(), "config")
		write(t, file, "Host gpu1\n"+c.text+"\n")
		d := dialer(t, Options{ConfigFile: file})
		files, err := readConfigFiles(file, d.home)
		if err != nil {
			t.Fatal(err)
		}
		for _, reader := range []config{d.config, files} {
			d.config = reader
			r, err := d.route(Target{Host: "gpu1"})
			if err != nil {
				t.Fatal(err)
			}
			var p *Problem
			if err := r.unsupported.explain(methodsProblem(r, c.taken), c.taken); !errors.As(err, &p) {
				t.Fatalf("%q: got %v", c.text, err)
			}
			before := methodsProblem(r, c.taken)
			if !strings.Contains(p.Cause, c.cause) || !strings.Contains(p.Cure, c.cure) ||
				(c.cause == "") != (p.Cause == before.Cause) || (c.cure == "") != (p.Cure == before.Cure) {
				t.Errorf("%q, machine takes %q: got %v; want %q, %q", c.text, c.taken, p, c.cause, c.cure)
			}
		}
	}
	s := sshdByPassword(t, "secret")
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, "ControlPath "+socket+"\nPasswordAuthentication no\n")
	dialed(t, Options{ConfigFile: file, KnownHosts: s.know("ed25519")}, s, "which mlfnode can't")
}
