package shell

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mlfnode/grid/gridtest"

	"golang.org/x/crypto/ssh"
)

func authorized(key ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(key)) }

// The texts that a user gets.
func TestProblems(t *testing.T) {
	s := sshd(t, []string{"ed25519"})
	passwords := sshd(t, []string{"ed25519"}, "PubkeyAuthentication no", "KbdInteractiveAuthentication no")
	mute := sshd(t, []string{"ed25519"}, "ForceCommand echo This account is not available.")
	hung := listen(t)
	defer hung.Close()
	hungAt, err := ParseTarget(hung.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	other, locked := filepath.Join(dir, "other"), filepath.Join(dir, "locked")
	otherKey := writeKey(t, other, "ed25519", "")
	lockedKey := writeKey(t, locked, "ed25519", "secret")
	write(t, filepath.Join(s.dir, "authorized"), authorized(s.user)+authorized(lockedKey))
	name := fmt.Sprintf("[127.0.0.1]:%d ", s.port)
	changed, revoked := filepath.Join(dir, "changed"), filepath.Join(dir, "revoked")
	write(t, changed, "# mine\n"+name+authorized(otherKey))
	write(t, revoked, "@revoked * "+authorized(s.hosts["ed25519"]))
	jumps := filepath.Join(dir, "jumps")
	write(t, jumps, fmt.Sprintf("Host a\nProxyJump b\nHost b\nProxyJump a\nHost c\nProxyCommand sh -c 'echo no %%h:%%p >&2; exit 3'\nHost e\nProxyCommand sleep 60\nHost d\nProxyJump root@%s\nHostName 127.0.0.1\nPort 1\n",
		s.address()))
	host, port := fingerprint(s.hosts["ed25519"]), s.port
	closed := Target{Host: "127.0.0.1", Port: gridtest.FreePort(t)}
	for _, c := range []struct {
		name        string
		o           Options
		t           Target
		cause, cure string
	}{
		{"not found", Options{}, Target{Host: "gpu1.invalid"},
			"there is no machine gpu1.invalid, the name gpu1.invalid was not found",
			"correct the name, or add it to ~/.ssh/config with a HostName"},
		{"refused", Options{}, closed, fmt.Sprintf("127.0.0.1 refuses connections on port %d", closed.Port),
			"start the ssh server there, or give the right port"},
		{"hung", Options{}, hungAt, hungAt.String() + " took the connection and then said nothing for 10s",
			fmt.Sprintf("check that port %d is an ssh server and that the machine is not overloaded", hungAt.Port)},
		{"changed", Options{Key: s.key, KnownHosts: changed, AcceptNew: true, Prompt: &person{yes: true}}, s.target(),
			fmt.Sprintf("the host key of %s is not the known one: it shows %s, and %s:2 says %s. The machine was reinstalled, or somebody intercepts the connection",
				s.address(), host, changed, fingerprint(otherKey)),
			fmt.Sprintf(
				"if it was reinstalled, forget the old key with `ssh-keygen -R '[127.0.0.1]:%d' -f '%s'` and try again",
				port, changed)},
		{"revoked", Options{Key: s.key, KnownHosts: revoked, AcceptNew: true}, s.target(),
			fmt.Sprintf("the host key of %s is revoked by %s:1, %s", s.address(), revoked, host),
			"give the machine a new host key; do not use it before"},
		{"no file of known hosts", Options{Key: s.key, KnownHosts: dir}, s.target(),
			"the known hosts cannot be read, read " + dir + ": is a directory", "make the file readable"},
		{"circle", Options{ConfigFile: jumps}, Target{Host: "a"}, "the jump hosts of a form a loop",
			"fix ProxyJump in ~/.ssh/config"},
		{"proxy command", Options{ConfigFile: jumps}, Target{User: "me", Host: "c"},
			`the ProxyCommand of c gives no connection, it said "no c:22": sh -c 'echo no c:22 >&2; exit 3'`,
			"fix it in ~/.ssh/config; see what `ssh me@c` says"},
		{"silent proxy command", Options{ConfigFile: jumps}, Target{User: "me", Host: "e"},
			"the ProxyCommand of e said nothing for 10s: sleep 60",
			"see whether `ssh me@e` gets there"},
		{"beyond the jump host",
			Options{ConfigFile: jumps, Key: s.key, KnownHosts: s.know("ed25519")}, Target{Host: "d"},
			"the jump host 127.0.0.1 cannot reach 127.0.0.1:1 (Connection refused)", "see what `ssh -p 1 "},
		{"no configuration", Options{ConfigFile: filepath.Join(dir, "no")}, closed,
			"there is no configuration of ssh " + filepath.Join(dir, "no"),
			"correct the name"},
		{"unknown", Options{Key: s.key, KnownHosts: filepath.Join(dir, "none")}, s.target(),
			fmt.Sprintf("the host key of %s is not known, and there is no terminal to ask whether %s is right",
				s.address(), host),
			fmt.Sprintf(
				"run `ssh -p %d root@127.0.0.1` once and compare the fingerprint, or add --accept-new to trust machines that are new",
				port)},
		{"not accepted", Options{Key: s.key, KnownHosts: filepath.Join(dir, "none"), Prompt: &person{}}, s.target(),
			fmt.Sprintf("the host key of %s was not accepted, %s", s.address(), host),
			"compare it with what `ssh-keygen -l -f` says of the file in /etc/ssh there"},
		{"no key accepted", Options{Key: other, KnownHosts: s.know("ed25519")}, s.target(),
			fmt.Sprintf(
				"%s lets root in with none of the keys here, tried %s; it takes publickey, password, keyboard-interactive",
				s.address(), other),
			fmt.Sprintf(
				"run `ssh-copy-id -p %d root@127.0.0.1` once, or name the key with -i or an IdentityFile in ~/.ssh/config",
				port)},
		{"encrypted", Options{Key: locked, KnownHosts: s.know("ed25519")}, s.target(),
			"the key " + locked + " is encrypted, and there is no terminal to ask for its passphrase",
			"run `ssh-add '" + locked + "'` first"},
		{"passphrase", Options{Key: locked, KnownHosts: s.know("ed25519"), Prompt: &person{secret: "wrong"}},
			s.target(),
			"the passphrase does not open the key " + locked, "try again, or run `ssh-add '" + locked + "'` first"},
		{"password only", Options{Key: s.key, KnownHosts: passwords.know("ed25519")}, passwords.target(),
			passwords.address() + " lets root in by password only, and there is no terminal to ask for it",
			"run this in a terminal, or have the ssh server there take keys"},
		{"wrong password", Options{KnownHosts: passwords.know("ed25519"), Prompt: &person{secret: "wrong"}},
			passwords.target(),
			passwords.address() + " did not take the password of root", "try again"},
		{"mute shell", Options{Key: mute.key, KnownHosts: mute.know("ed25519")}, mute.target(),
			`the login shell of root on ` + mute.address() +
				` runs no programs, it said "This account is not available."`,
			"give the user a shell there, as with `chsh -s /bin/sh root`"},
		{"no key file", Options{Key: filepath.Join(dir, "no")}, closed,
			"there is no key file " + filepath.Join(dir, "no"),
			"correct the name, or make a key with `ssh-keygen -f '" + filepath.Join(dir, "no") + "'`"},
		{"no key in file", Options{Key: revoked}, closed, revoked + " contains no private key that ssh knows",
			"name the private half of a key, as ssh-keygen makes it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("SSH_AUTH_SOCK", "")
			var got *Problem
			if err := used(t, c.o, c.t); !errors.As(err, &got) {
				t.Fatalf("error = %v; want a Problem", err)
			}
			if got.Cause != c.cause {
				t.Errorf("cause = %s\nwant    %s", got.Cause, c.cause)
			}
			if !strings.HasPrefix(got.Cure, c.cure) {
				t.Errorf("cure = %s\nwant   %s", got.Cure, c.cure)
			}
		})
	}
}

// What the network says, where this machine cannot have it happen.
func TestNetworkProblems(t *testing.T) {
	r := route{name: "gpu1", host: "10.0.0.1", port: 22,
		transportOptions: transportOptions{connectTimeout: connectTimeout}}
	for want, err := range map[string]error{
		"10.0.0.1 did not answer on port 22 within 10s":                 context.DeadlineExceeded,
		"there is no route to gpu1 (10.0.0.1:22)":                       syscall.EHOSTUNREACH,
		"the name 10.0.0.1 could not be looked up (server misbehaving)": &net.DNSError{Err: "server misbehaving"},
		"gpu1 (10.0.0.1:22) cannot be connected to (operation not permitted)": &net.OpError{Op: "dial",
			Err: syscall.EPERM},
	} {
		if got := networkProblem(r, err); got.Cause != want || got.Cure == "" {
			t.Errorf("problem = %+v; want %s, and a cure", got, want)
		}
	}
}

// used dials and runs a program.
func used(t *testing.T, o Options, target Target) error {
	d, err := NewDialer(o)
	if err != nil {
		return err
	}
	defer d.Close()
	c, err := d.Dial(limited(t), target)
	if err != nil {
		return err
	}
	return errors.Join(c.Run(limited(t), "true", nil, nil), c.Close())
}
