package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
)

// TestRotateCA rotates the CA of a cluster while trials run: of a master and a worker that is
// there, one that is away all the time, and one that is away from the second step on; with people
// who use the cluster meanwhile and one who does not.
func TestRotateCA(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute)
	defer stop()
	c := startShort(t, ctx, 24*time.Hour)
	mlfnode := func(args ...string) (code int, said string) {
		var out, errs bytes.Buffer
		code = run(ctx, &interrupts{}, append(args, "--state-dir", c.master.StateDir), &out, &errs)
		return code, out.String() + errs.String()
	}
	until := func(what string, done func() bool) {
		t.Helper()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for !done() {
			select {
			case <-tick.C:
			case err := <-c.done:
				t.Fatalf("%s: the worker ended: %v", what, err)
			case <-ctx.Done():
				t.Fatalf("%s: did not come", what)
			}
		}
	}
	other := func(name string) config.Config { // has joined, and is away
		cfg := c.worker
		cfg.StateDir, cfg.Node = filepath.Join(t.TempDir(), name), grid.NodeID(name)
		if _, err := node.Join(ctx, cfg, c.address, c.token(t, ctx)); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	away := other("away")
	early := c.token(t, ctx)
	made, err := c.client.Access().MakeToken(ctx, api.NewToken{Role: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	person, err := node.Introduce(ctx, c.address, token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.SaveContext(person); err != nil {
		t.Fatal(err)
	}
	file, err := node.ContextFile()
	if err != nil {
		t.Fatal(err)
	}
	resting := filepath.Join(t.TempDir(), "context.yaml")
	if err := trust.SaveContext(resting, person); err != nil {
		t.Fatal(err)
	}
	lasting, err := node.FindContact(c.address) // of a command that goes on, as mlfnode monitor
	if err != nil {
		t.Fatal(err)
	}
	use := func(what string, cas int) {
		t.Helper()
		fresh, err := node.FindContact(c.address)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, contact := range []*node.Contact{lasting, fresh} {
			client := contact.Client()
			_, err := client.Access().CA(ctx)
			client.Close()
			if err != nil {
				t.Errorf("%s: a person gets %v", what, err)
			}
		}
		kept, err := trust.LoadContext(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(kept.CA, "BEGIN CERTIFICATE"); n != cas {
			t.Errorf("%s: the context has %d CAs, want %d", what, n, cas)
		}
	}
	step := func(name string, args ...string) {
		t.Helper()
		if code, said := mlfnode(append([]string{"ca", name}, args...)...); code != 0 {
			t.Fatalf("ca %s: %s", name, said)
		}
		until(name, func() bool {
			s, err := c.client.Access().CA(ctx)
			return err == nil && (len(s.Behind) == 0 || name == "retire")
		})
	}
	trusted := func(cfg config.Config) int {
		id, err := trust.LoadIdentity(filepath.Join(cfg.StateDir, "trust"))
		if err != nil {
			t.Fatal(err)
		}
		return len(id.CAs)
	}

	v, err := c.client.Sweeps().Submit(ctx, sleepers(t, "60"))
	if err != nil {
		t.Fatal(err)
	}
	before := leaf(t, c.worker)
	use("at first", 1)
	if code, said := mlfnode("ca", "switch"); code != 1 || !strings.Contains(said, "mlfnode ca rotate") {
		t.Errorf("a switch without a new CA: got %d, %s", code, said)
	}
	step("rotate")
	use("announced", 2)
	late := other("late")
	code, said := mlfnode("ca")
	if code != 0 || !strings.Contains(said, "is announced") ||
		!strings.Contains(said, "away is away and has not followed") || strings.Contains(said, "w is ") {
		t.Errorf("got %d, %s", code, said)
	}
	step("switch")
	use("switched", 2)
	if leaf(t, c.worker) == before {
		t.Error("the worker has its old certificate")
	}
	if code, said := mlfnode("ca", "retire"); code != 1 || !strings.Contains(said, "away, late") {
		t.Errorf("retired while nodes have certificates of the old CA: got %d, %s", code, said)
	}
	step("retire", "--now")
	use("retired", 1)
	until("only the new CA", func() bool { return trusted(c.worker) == 1 })

	// What is of the old CA.
	var refusal *api.Error
	if _, err := node.Introduce(ctx, c.address, token); !errors.As(err, &refusal) ||
		!strings.Contains(refusal.Hint, "rotated") {
		t.Errorf("an old token: got %v", err)
	}
	if err := os.Rename(resting, file); err != nil {
		t.Fatal(err)
	}
	old, err := node.FindContact(c.address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Reach(ctx, old); !errors.As(err, &refusal) || !strings.Contains(refusal.Hint, "rotated") {
		t.Errorf("a context that nobody has used: got %v", err)
	}
	id, err := trust.LoadIdentity(filepath.Join(late.StateDir, "trust"))
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []int{c.master.Cluster.Ports.API, c.master.Cluster.Ports.NATS} {
		if err := knocks(ctx, fmt.Sprintf("127.0.0.1:%d", port), id.Client()); err == nil {
			t.Errorf("port %d takes a certificate of the old CA", port)
		}
	}
	n, err := node.OpenWorker(ctx, late)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-n.Failed():
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Msg, "rotated while it was away") ||
			!strings.Contains(refusal.Hint, "mlfnode token") {
			t.Errorf("a node that was away: got %v", err)
		}
	case <-ctx.Done():
		t.Error("a node that was away goes on")
	}
	n.Close()
	if n, err = node.OpenWorker(ctx, away); err != nil {
		t.Fatal(err)
	}
	until("the node that was away all the time sees what has happened", func() bool {
		return membership.Refused(away.StateDir)
	})
	n.Stop()
	n.Close()
	if _, err := node.Join(ctx, away, c.address, early); err == nil {
		t.Error("joined with a token of the old CA")
	}
	for _, cfg := range []config.Config{away, late} {
		if _, err := node.Join(ctx, cfg, c.address, c.token(t, ctx)); err != nil {
			t.Errorf("%s joins again: %v", cfg.Node, err)
		}
		n, err := node.OpenWorker(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.Working():
		case <-ctx.Done():
			t.Errorf("%s does not work again", cfg.Node)
		}
		n.Stop()
		n.Close()
	}
	until("the sweep", func() bool {
		v, err = c.client.Sweeps().Get(ctx, v.Sweep)
		return err == nil && v.State == grid.SweepFinished
	})
	if v.Succeeded != 60 {
		t.Errorf("got %+v, want 60 trials that succeeded", v)
	}
	c.masterNode.Close() // the master starts again with the new CA, and the worker finds it
	if c.masterNode, err = node.OpenMaster(ctx, c.master); err != nil {
		t.Fatal(err)
	}
	if v, err = c.client.Sweeps().Submit(ctx, sleepers(t, "3")); err != nil {
		t.Fatal(err)
	}
	until("a sweep after a restart", func() bool {
		v, err = c.client.Sweeps().Get(ctx, v.Sweep)
		return err == nil && v.State == grid.SweepFinished
	})
}

// knocks reports why a server does not take a client's certificate, which it says with its first
// word.
func knocks(ctx context.Context, address string, cfg *tls.Config) error {
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://master"+api.PathHealthy, nil)
	if err != nil {
		return err
	}
	_ = request.Write(conn)
	_, err = conn.Read(make([]byte, 1))
	return err
}
