package shell

import (
	"fmt"
	"path/filepath"
	"slices"
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
		"PreferredAuthentications gssapi-with-mic,keyboard-interactive,publickey": {"keyboard-interactive", "publickey"},
		"PreferredAuthentications password,publickey\nPubkeyAuthentication no":    {"password"},
		"PasswordAuthentication no\nPasswordAuthentication yes":                   {"publickey", "keyboard-interactive"},
		"KbdInteractiveAuthentication no\nPubkeyAuthentication unbound":           {"publickey", "password"},
		"ChallengeResponseAuthentication no":                                      {"publickey", "password"},
		"Host other\nPasswordAuthentication no":                                   {"publickey", "password", "keyboard-interactive"},
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
			fmt.Sprintf("%s takes password, and of the ways to be let in ssh's configuration allows publickey, keyboard-interactive", byPassword.address()), 0},
		{"keys off, password", byPassword, "PubkeyAuthentication no", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("SSH_AUTH_SOCK", "")
			config := filepath.Join(t.TempDir(), "config")
			write(t, config, "Host *\n"+tt.config+"\n")
			asked := &person{secret: "secret"}
			dialed(t, Options{ConfigFile: config, Key: tt.s.key, KnownHosts: tt.s.know("ed25519"), Prompt: asked}, tt.s, tt.want)
			if len(asked.asked) != tt.asked {
				t.Errorf("asked %q; want %d questions", asked.asked, tt.asked)
			}
		})
	}
}
