package shell

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"
)

// behind writes a configuration of machines gpu0, gpu1, … behind the jump hosts given, and gives
// how often each of those was connected to.
func behind(t *testing.T, o Options, last *server, jumps ...*server) (Options, []*atomic.Int64) {
	t.Helper()
	known := "inner " + authorized(last.hosts["ed25519"])
	config := fmt.Sprintf("Host gpu*\nHostName 127.0.0.1\nPort %d\nHostKeyAlias inner\nIdentityFile %s\nProxyJump ",
		last.port, last.key)
	hosts, counts := "", []*atomic.Int64{}
	for i, j := range jumps {
		count := &atomic.Int64{}
		at := dropping(t, func() string { count.Add(1); return j.address() }, make(chan struct{}))
		known += knownhosts.Normalize(at.String()) + " " + authorized(j.hosts["ed25519"])
		if i > 0 {
			config += ","
		}
		config += fmt.Sprint("jump", i)
		hosts += fmt.Sprintf("Host jump%d\nHostName %s\nPort %d\nIdentityFile %s\n", i, at.Host, at.Port, j.key)
		counts = append(counts, count)
	}
	dir := t.TempDir()
	o.ConfigFile, o.KnownHosts = filepath.Join(dir, "config"), filepath.Join(dir, "known_hosts")
	write(t, o.ConfigFile, config+"\n"+hosts+"Host *\nUser root\nConnectTimeout 3\n")
	write(t, o.KnownHosts, known)
	return o, counts
}

// closing gives Close once, for a test that closes before its end.
func closing(t *testing.T, c *Connection) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Machines behind a jump host share one connection to it, whose password is asked for once. It ends
// with the last of them.
func TestJumpShared(t *testing.T) {
	const machines = 20
	last, jump := sshd(t, []string{"ed25519"}, "MaxStartups 100"),
		sshdByPassword(t, "secret", "MaxSessions 1", "MaxStartups 1")
	asked := &person{secret: "secret", slips: 1}
	o, counts := behind(t, Options{Prompt: asked}, last, jump)
	d := dialer(t, o)
	var all sync.WaitGroup
	open := make([]*Connection, machines)
	for i := range machines {
		all.Go(func() {
			c, err := d.Dial(limited(t), Target{Host: fmt.Sprint("gpu", i)})
			if err != nil {
				t.Errorf("dial gpu%d: %v", i, err)
				return
			}
			open[i] = c
			if got, err := Output(limited(t), c, "echo hello", nil); got != "hello\n" {
				t.Errorf("gpu%d: output = %q, %v; want hello", i, got, err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if n := counts[0].Load(); n != 1 || len(asked.asked) != 2 {
		t.Errorf("the jump host was connected to %d times, and %q was asked; want 1, and one slip", n, asked.asked)
	}
	for i, c := range open[1:] {
		closing(t, c)
		if i == 0 {
			closing(t, c) // twice is as good as once
		}
	}
	if _, err := Output(limited(t), open[0], "echo hello", nil); err != nil {
		t.Errorf("after the others were closed: %v", err)
	}
	jumpHost := d.jumps.byPath[onlyKey(t, d)].conn
	closing(t, open[0])
	if !jumpHost.lost() || len(d.jumps.byPath) != 0 {
		t.Error("the connection to the jump host is open after the last machine's was closed")
	}
}

func onlyKey(t *testing.T, d *Dialer) (key string) {
	t.Helper()
	if len(d.jumps.byPath) != 1 {
		t.Fatalf("%d jump hosts are connected, want 1", len(d.jumps.byPath))
	}
	for key = range d.jumps.byPath {
	}
	return key
}

// A connection to a jump host that was lost is replaced for the machines to come.
func TestJumpLost(t *testing.T) {
	last, jump := sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"})
	o, counts := behind(t, Options{}, last, jump)
	d := dialer(t, o)
	before := open(t, d, Target{Host: "gpu0"})
	lost := d.jumps.byPath[onlyKey(t, d)].conn
	_ = lost.conn.Close()
	var p *Problem
	if err := before.Run(limited(t), "true", nil, nil); !errors.As(err, &p) {
		t.Errorf("a program behind it = %v; want a Problem", err)
	}
	if err := lost.client.Wait(); err == nil {
		t.Error("the connection ended well; want an error")
	}
	open(t, d, Target{Host: "gpu1"})
	if n := counts[0].Load(); n != 2 {
		t.Errorf("the jump host was connected to %d times; want 2", n)
	}
}

// Jump hosts in a row are shared too, each with those before it.
func TestJumpsShared(t *testing.T) {
	last, a, b := sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"})
	o, counts := behind(t, Options{}, last, a, b)
	config, err := os.ReadFile(o.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	// The same way, written otherwise.
	write(t, o.ConfigFile, "Host gpu1\nProxyJump jump1\nHost jump1\nProxyJump jump0\n"+string(config))
	d := dialer(t, o)
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { open(t, d, Target{Host: fmt.Sprint("gpu", i%3)}) })
	}
	all.Wait()
	if a, b := counts[0].Load(), counts[1].Load(); a != 1 || b != 1 {
		t.Errorf("the jump hosts were connected to %d and %d times; want 1 and 1", a, b)
	}
}

// Who gives up takes the jump host from nobody else.
func TestJumpGivenUp(t *testing.T) {
	last, jump := sshd(t, []string{"ed25519"}), sshdByPassword(t, "secret")
	slow := &slowPerson{person: person{secret: "secret"}, until: make(chan struct{})}
	o, counts := behind(t, Options{Prompt: slow}, last, jump)
	d := dialer(t, o)
	ctx, cancel := context.WithCancelCause(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := d.Dial(ctx, Target{Host: "gpu0"})
		first <- err
	}()
	var all sync.WaitGroup
	all.Go(func() { open(t, d, Target{Host: "gpu1"}) })
	for users := 0; users < 2; { // both wait for the jump host
		d.jumps.mu.Lock()
		for _, p := range d.jumps.byPath {
			users = p.users
		}
		d.jumps.mu.Unlock()
	}
	cancel(errEnough)
	if err := <-first; !errors.Is(err, errEnough) {
		t.Errorf("dial = %v; want %v", err, errEnough)
	}
	close(slow.until)
	all.Wait()
	if n := counts[0].Load(); n != 1 || len(slow.asked) != 1 {
		t.Errorf("the jump host was connected to %d times, and %q was asked; want 1 of each", n, slow.asked)
	}
}

// A jump host that goes silent is named.
func TestJumpSilent(t *testing.T) {
	last, jump := sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"})
	at, silence := proxy(t, jump.address())
	hung := listen(t)
	defer hung.Close()
	dir := t.TempDir()
	o := Options{ConfigFile: filepath.Join(dir, "config"), KnownHosts: filepath.Join(dir, "known_hosts"), Key: jump.key}
	write(t, o.ConfigFile,
		fmt.Sprintf("Host gpu*\nHostName 127.0.0.1\nPort %d\nHostKeyAlias inner\nIdentityFile %s\nProxyJump %s\n"+
			"Host far\nProxyJump %s\nHost *\nUser root\nConnectTimeout 1\n", last.port, last.key, at, hung.Addr()))
	write(t, o.KnownHosts, "inner "+authorized(last.hosts["ed25519"])+knownhosts.Normalize(at.String())+" "+
		authorized(jump.hosts["ed25519"]))
	d := dialer(t, o)
	open(t, d, Target{Host: "gpu0"})
	silence()
	for machine, want := range map[string]string{
		"gpu1": fmt.Sprintf("the jump host 127.0.0.1 did not get through to %s within 1s", last.address()),
		"far": fmt.Sprintf(
			"the jump host 127.0.0.1 of far cannot be passed, %s took the connection and then said nothing for 10s",
			hung.Addr()),
	} {
		if _, err := d.Dial(limited(t), Target{Host: machine}); err == nil || err.Error() != want {
			t.Errorf("dial %s = %v; want %s", machine, err, want)
		}
	}
}

// TestJumpForbidden names what keeps a jump host from being one.
func TestJumpForbidden(t *testing.T) {
	last, jump := sshd(t, []string{"ed25519"}), sshd(t, []string{"ed25519"}, "AllowTcpForwarding no")
	o, _ := behind(t, Options{}, last, jump)
	_, err := dialer(t, o).Dial(limited(t), Target{Host: "gpu0"})
	want := fmt.Sprintf(
		"the jump host jump0 cannot reach %s (it passes no connections on, see AllowTcpForwarding of its ssh server)",
		last.address())
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
