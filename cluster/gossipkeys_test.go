package cluster

import (
	"bytes"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKeyRotation changes the key again and again while the nodes talk.
func TestKeyRotation(t *testing.T) {
	nodes := startMany(t, 4, nil)
	var seen changes
	defer nodes[0].Watch(seen.add)()
	old := key1
	for round := range 5 {
		fresh := bytes.Repeat([]byte{byte(round + 1)}, 32)
		each(t, nodes, func(c *Cluster) error { return c.InstallKey(fresh) })
		each(t, nodes, func(c *Cluster) error { return c.UseKey(fresh) })
		each(t, nodes, func(c *Cluster) error { return c.RemoveKey(old) })
		old = fresh
		for i, c := range nodes {
			c.Update(func(s *Self) { s.Drained = round%2 == 0 })
			join(t, c, nodes[(i+1)%4])
		}
		wait(t, 300*time.Millisecond)
	}
	for _, c := range nodes {
		if got := c.Keys(); len(got) != 1 || !bytes.Equal(got[0], old) || count(c, Alive) != 4 {
			t.Errorf("%s has %d keys and %d alive members, want 1 and 4", c.node, len(got), count(c, Alive))
		}
		eventually(t, "the last update is known", func() bool {
			return !slices.ContainsFunc(c.Members(), func(m Member) bool { return !m.Drained })
		})
	}
	if n := seen.count(Dead); n != 0 {
		t.Errorf("got %d deaths: %q", n, seen.list)
	}
}

func each(t *testing.T, nodes []*Cluster, do func(*Cluster) error) {
	t.Helper()
	for _, c := range nodes {
		if err := do(c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyring(t *testing.T) {
	cfg := config("n")
	cfg.Keys = [][]byte{key1, key2, bytes.Repeat([]byte("3"), 16)}
	c := start(t, cfg)
	if err := c.RemoveKey(key1); err == nil {
		t.Error("removed the primary key")
	}
	if err := c.RemoveKey(key2); err != nil {
		t.Error(err)
	}
	if got := c.Keys(); len(got) != 2 || !bytes.Equal(got[0], key1) || !bytes.Equal(got[1], cfg.Keys[2]) {
		t.Errorf("got keys %q", got)
	}
	if err := c.RemoveKey(key2); err != nil {
		t.Errorf("removed a key twice: %v", err)
	}
	if err := c.UseKey(key2); err == nil {
		t.Error("used a key that is not installed")
	}
	open := config("open")
	open.Keys = nil
	if o := start(t, open); o.InstallKey(key1) == nil || o.Keys() != nil {
		t.Error("installed a key without encryption")
	}
}

func TestWrongKey(t *testing.T) {
	good := start(t, config("good"))
	cfg := config("bad")
	cfg.Keys = [][]byte{key2}
	bad := start(t, cfg)
	err := bad.Join(short(t), []string{good.address})
	if err == nil || !strings.Contains(err.Error(), "another gossip key") {
		t.Errorf("got error %v", err)
	}
	cfg = config("other")
	cfg.Label = "another"
	other := start(t, cfg)
	if err := other.Join(short(t), []string{good.address}); err == nil ||
		!strings.Contains(err.Error(), "another cluster") {
		t.Errorf("got error %v", err)
	}
	if n := len(good.Members()); n != 1 {
		t.Errorf("got %d members, want the node alone", n)
	}
}

// TestForeignPackets sends what no member sends, and looks for it in the log.
func TestForeignPackets(t *testing.T) {
	var log lockedBuffer
	cfg := config("n")
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := start(t, cfg)
	packets := []string{
		"evil", "\x04evil\x1b[31m", "\xf4\x04evilevil",
		"\xf4\xffevil", "\x0aevil", "\x00evil", "\xf4\x04test\x01evilevilevilevilevilevilevil",
		"\xf4\x04test\x08evil", "\xf4\x00evil", strings.Repeat("evil", 10000),
	}
	for _, p := range packets {
		send(t, "udp", c.address, p)
		send(t, "tcp", c.address, p)
	}
	eventually(t, "the refusal is in the log", func() bool { return strings.Contains(log.String(), "was refused") })
	wait(t, 200*time.Millisecond)
	if text := log.String(); strings.Contains(text, "evil") {
		t.Errorf("the log holds what was sent:\n%s", text)
	}
	if n := strings.Count(log.String(), "was refused"); n != 1 {
		t.Errorf("got %d warnings, want 1 a minute", n)
	}
	if n := len(c.Members()); n != 1 {
		t.Errorf("got %d members", n)
	}
}

func send(t *testing.T, network, address, text string) {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte(text)) // a packet that is too long can't be sent, and a stream may be closed before its end
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
