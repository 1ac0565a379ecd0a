package shell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// A program ends with itself, not with the child that it left behind and that holds its output.
func TestChildLeftBehind(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")}), s.target())
	start := time.Now()
	got, err := Output(limited(t), c, "sleep 30 & echo here", nil)
	if took := time.Since(start); err != nil || got != "here\n" || took > 15*time.Second {
		t.Errorf("output = %q, %v after %v; want here, soon", got, err, took)
	}
}

// Lines of known hosts that cannot be read are passed over, and each other line means what it does
// to OpenSSH.
func TestKnownLines(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	own := string(ssh.MarshalAuthorizedKey(s.hosts["ed25519"]))
	other := string(ssh.MarshalAuthorizedKey(writeKey(t, filepath.Join(s.dir, "other"), "ed25519", "")))
	name := knownhosts.Normalize(s.address())
	tests := []struct{ name, lines, want string }{
		{"old format before", "a 1024 35 1234567\n" + name + " " + own, ""},
		{"broken before", "a ssh-ed25519 AAAA\n" + name + " " + own, ""},
		{"without a port", "127.0.0.1 " + own, ""},
		{"another without a port", "127.0.0.1 " + other, "is not known"},
		{"negated", "*,!127.0.0.1,!" + name + " " + own, "is not known"},
		{"hashed", knownhosts.HashHostname(name) + " " + own, ""},
		{"changed, hashed", knownhosts.HashHostname(name) + " " + other, "is not the known one"},
		{"the key of an authority", "@cert-authority " + name + " " + own, "is not known"},
		{"another authority", "@cert-authority * " + other, "is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			write(t, file, tt.lines)
			dialed(t, Options{Key: s.key, KnownHosts: file}, s, tt.want)
		})
	}
}

// dialed checks how a dial ends: "" for well, else with a word of the cause.
func dialed(t *testing.T, o Options, s *server, want string) {
	t.Helper()
	c, err := dialer(t, o).Dial(limited(t), s.target())
	if c != nil {
		_ = c.Close() // only the dial is looked at
	}
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("dial = %v; want %q", err, want)
	}
}

func TestConfiguredTrust(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	config := filepath.Join(s.dir, "ssh_config")
	for policy, want := range map[string]string{"accept-new": "", "no": "", "ask": "is not known",
		"yes": "is not known"} {
		write(t, config, "StrictHostKeyChecking "+policy+"\n")
		dialed(t, Options{Key: s.key, ConfigFile: config, KnownHosts: filepath.Join(t.TempDir(), "known_hosts")}, s,
			want)
	}
	write(t, config, "UserKnownHostsFile none\n")
	dialed(t, Options{Key: s.key, ConfigFile: config, AcceptNew: true}, s, "")
	if _, err := os.Stat("none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat none = %v; want no such file", err)
	}
}

func TestConfiguredKeys(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	locked, broken := filepath.Join(s.dir, "locked"), filepath.Join(s.dir, "broken")
	public := writeKey(t, locked, "ed25519", "open sesame")
	write(t, filepath.Join(s.dir, "authorized"), authorized(public)+authorized(s.user))
	write(t, broken, "no key\n")
	many := ""
	for i := range 8 {
		path := filepath.Join(s.dir, fmt.Sprint("key", i))
		writeKey(t, path, "ed25519", "")
		many += "IdentityFile " + path + "\n"
	}
	tests := []struct{ name, config, want string }{
		{"locked before good", "IdentityFile " + locked + "\nIdentityFile " + s.key, ""},
		{"broken before good", "IdentityFile " + broken + "\nIdentityFile " + s.key, ""},
		{"broken", "IdentityFile " + broken, "contains no private key"},
		{"many", many, "and left out 3 more; it takes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "ssh_config")
			write(t, config, tt.config+"\n")
			dialed(t, Options{ConfigFile: config, KnownHosts: s.know("ed25519")}, s, tt.want)
		})
	}
}

func TestTooManyTries(t *testing.T) {
	s := sshd(t, []string{"ed25519"}, "MaxAuthTries 1")
	key := filepath.Join(s.dir, "strange")
	writeKey(t, key, "ed25519", "")
	dialed(t, Options{Key: key, KnownHosts: s.know("ed25519")}, s, "allows no more tries to let root in")
}

// mute is a Prompter without answers.
type mute struct{ asked int }

func (m *mute) Confirm(context.Context, string) (bool, error) { return false, nil }

func (m *mute) Secret(context.Context, string) ([]byte, error) {
	m.asked++
	return nil, errors.New("no answer")
}

// A passphrase that the user does not give is not asked for again.
func TestPassphraseRefused(t *testing.T) {
	s := sshd(t, []string{"ed25519"}, "PasswordAuthentication no", "KbdInteractiveAuthentication no")
	key := filepath.Join(s.dir, "locked")
	write(t, filepath.Join(s.dir, "authorized"), authorized(writeKey(t, key, "ed25519", "open sesame")))
	user := &mute{}
	d := dialer(t, Options{Key: key, KnownHosts: s.know("ed25519"), Prompt: user})
	for range 3 {
		if _, err := d.Dial(limited(t), s.target()); err == nil {
			t.Error("dial = nil; want the refusal")
		}
	}
	if user.asked != 1 {
		t.Errorf("asked %d times; want 1", user.asked)
	}
}
