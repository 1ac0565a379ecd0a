package shell

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestRun(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")}), s.target())
	text := "it's \"$HOME\" \\ 100% `x` !! \t\\n\\c ü;\n"
	got, err := Output(limited(t), c, "printf %s "+Quote(text), nil)
	if err != nil || got != text {
		t.Errorf("output = %q, %v; want %q", got, err, text)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	got, err = Output(limited(t), c, "cat", bytes.NewReader(big))
	if err != nil || got != string(big) {
		t.Errorf("cat gave %d bytes, %v; want %d", len(got), err, len(big))
	}
	for program, want := range map[string]int{"exit 3": 3, "kill -TERM $$": 143} {
		var exit *ExitError
		if err := c.Run(limited(t), program, nil, nil); !errors.As(err, &exit) || exit.Code != want {
			t.Errorf("%s = %v; want exit code %d", program, err, want)
		}
	}
	var exit *ExitError
	if err := c.Run(limited(t), "echo no good >&2; exit 1", nil, nil); !errors.As(err, &exit) ||
		exit.Stderr != "no good\n" {
		t.Errorf("error = %q; want its own words", err)
	}
}

// More programs than a connection holds sessions run in turn.
func TestRunSideBySide(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")}), s.target())
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			want := fmt.Sprintln(i)
			if got, err := Output(limited(t), c, fmt.Sprint("echo ", i), nil); err != nil || got != want {
				t.Errorf("output = %q, %v; want %q", got, err, want)
			}
		})
	}
	all.Wait()
}

// A host known by one kind of key does not look changed because it has others too.
func TestKnownByOneKind(t *testing.T) {
	s := sshd(t, []string{"rsa", "ed25519"})
	for _, kinds := range [][]string{{"rsa"}, {"ed25519"}, {"rsa", "ed25519"}} {
		open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know(kinds...)}), s.target())
	}
}

func TestNewHost(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	known := filepath.Join(t.TempDir(), "new", "known_hosts")
	asked := &person{yes: true}
	d := dialer(t, Options{Key: s.key, KnownHosts: known, Prompt: asked})
	var all sync.WaitGroup
	for range 4 { // all at once: asked once
		all.Go(func() { open(t, d, s.target()) })
	}
	all.Wait()
	want := fmt.Sprintf("[%s was never seen before. Its host key is %s. Connect and remember it?]", s.address(),
		fingerprint(s.hosts["ed25519"]))
	if got := fmt.Sprint(asked.asked); got != want {
		t.Errorf("asked %s\nwant %s", got, want)
	}
	if info, err := os.Stat(known); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("known hosts: %v, %v; want mode 0600", info, err)
	}
	open(t, dialer(t, Options{Key: s.key, KnownHosts: known}), s.target())
	open(t, dialer(t, Options{Key: s.key, KnownHosts: known + "2", AcceptNew: true}), s.target())
}

// The passphrase of a key is asked for once, however many machines take it.
func TestPassphraseOnce(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	known := s.know("ed25519")
	key := filepath.Join(s.dir, "locked")
	write(t, filepath.Join(s.dir, "authorized"), authorized(writeKey(t, key, "rsa", "open sesame")))
	asked := &person{secret: "open sesame"}
	d := dialer(t, Options{Key: key, KnownHosts: known, Prompt: asked})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { open(t, d, s.target()) })
	}
	all.Wait()
	if want := "[passphrase of the key " + key + "]"; fmt.Sprint(asked.asked) != want {
		t.Errorf("asked %v; want %s", asked.asked, want)
	}
}

// A server that drops connections while others come in is tried again.
func TestMaxStartups(t *testing.T) {
	s := sshd(t, []string{"ed25519"}, "MaxStartups 2")
	known := s.know("ed25519")
	var all sync.WaitGroup
	for range 6 { // of two programs each, so that the limit of one does not keep the rest out
		d := dialer(t, Options{Key: s.key, KnownHosts: known})
		for range 2 {
			all.Go(func() { open(t, d, s.target()) })
		}
	}
	all.Wait()
}

func TestConfigAndJump(t *testing.T) {
	last, jump := sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"})
	known := filepath.Join(t.TempDir(), "known_hosts")
	text, err := os.ReadFile(jump.know("ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, known, string(text)+"inner "+authorized(last.hosts["ed25519"]))
	config := filepath.Join(t.TempDir(), "config")
	write(t, config+".more", "Host bastion\n HostName 127.0.0.1\n Match exec false\n User nobody\n")
	write(t, config, fmt.Sprintf(`Include %s.more
Match exec "false"
  User nobody
Host bastion
  Port %d
  IdentityFile %s
Host gpu?
  HostName 127.0.0.1
  Port %d
  ProxyJump bastion
  HostKeyAlias inner
  IdentityFile %s/us%%%%er
  IdentityFile %s
Host *
  User root
`, config, jump.port, jump.key, last.port, last.dir, last.key))
	d := dialer(t, Options{ConfigFile: config, KnownHosts: known})
	c := open(t, d, Target{Host: "gpu1"})
	if got, err := Output(limited(t), c, "echo hello", nil); got != "hello\n" {
		t.Errorf("output = %q, %v; want hello", got, err)
	}
	if got := d.Address(Target{Host: "gpu1"}); got != "127.0.0.1" {
		t.Errorf("address = %s; want 127.0.0.1", got)
	}
	write(t, filepath.Join(jump.dir, "authorized"), "")
	_, err = dialer(t, Options{ConfigFile: config, KnownHosts: known}).Dial(limited(t), Target{Host: "gpu1"})
	want := "the jump host bastion of gpu1 cannot be passed, bastion (" + jump.address() +
		") lets root in with none of the keys here, tried " + jump.key
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error = %v\nwant %s", err, want)
	}
}

func TestLost(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	c := open(t, dialer(t, Options{Key: s.key, KnownHosts: s.know("ed25519")}), s.target())
	err := c.Run(limited(t), "kill -9 $PPID; cat", endless(t), nil)
	if want := "the connection to " + s.address() + " was lost"; err == nil || err.Error() != want {
		t.Errorf("error = %v; want %s", err, want)
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]Target{
		"a": {Host: "a"}, "u@a": {User: "u", Host: "a"}, "u@a:22": {User: "u", Host: "a", Port: 22},
		"[::1]:7": {Host: "::1", Port: 7},
		"::1":     {Host: "::1"}, "u@[fe80::1]": {User: "u", Host: "fe80::1"},
		"ssh://u@a:2": {User: "u", Host: "a", Port: 2},
	} {
		got, err := ParseTarget(text)
		if err != nil || got != want {
			t.Errorf("%q = %+v, %v; want %+v", text, got, err, want)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != want {
			t.Errorf("%q = %+v, %v; want %+v", got.String(), again, err, want)
		}
	}
	for _, text := range []string{"", "@a", "u@", "a:0", "a:x", "a:99999", "-oProxyCommand=x", "a b", "a:b:c"} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q = %+v; want an error", text, got)
		}
	}
}
