package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
)

// shortCluster is a master and a worker in this process whose certificates are good for some
// seconds.
type shortCluster struct {
	client     *api.Client
	address    string // of the master's API
	master     config.Config
	worker     config.Config
	masterNode *node.Node // the master
	node       *node.Node // the worker
	done       <-chan error
}

func startShort(t *testing.T, ctx context.Context, life time.Duration) *shortCluster {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	settings := func(name string) config.Config {
		cfg, err := config.Load("")
		if err != nil {
			t.Fatal(err)
		}
		cfg.StateDir, cfg.Node, cfg.CertificateLife = filepath.Join(t.TempDir(), name), grid.NodeID(name), life
		cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Ports = "127.0.0.1", "127.0.0.1", config.Ports{}
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		return cfg
	}
	c := &shortCluster{master: settings("m"), worker: settings("w")}
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.master.Cluster.Ports.API, c.master.Cluster.Worker = l.Addr().(*net.TCPAddr).Port, false
	c.master.Cluster.Ports.NATS = other.Addr().(*net.TCPAddr).Port
	c.address = l.Addr().String()
	l.Close()
	other.Close()
	if c.masterNode, err = node.OpenMaster(ctx, c.master); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.masterNode.Close() })
	s, _ := node.At(ctx, c.master)
	if s == nil {
		t.Fatal("the master does not answer")
	}
	t.Cleanup(func() { s.Close() })
	c.client = s.Client()
	if _, err := node.Join(ctx, c.worker, c.address, c.token(t, ctx)); err != nil {
		t.Fatal(err)
	}
	if c.node, err = node.OpenWorker(ctx, c.worker); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.node.Stop()
		c.node.Close()
	})
	c.done = c.node.Failed()
	return c
}

func (c *shortCluster) token(t *testing.T, ctx context.Context) trust.Token {
	t.Helper()
	made, err := c.client.Access().MakeToken(ctx, api.NewToken{Role: "node", Uses: 1, User: "none"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// leaf is the certificate that a node has on its disk.
func leaf(t *testing.T, cfg config.Config) string {
	t.Helper()
	id, err := trust.LoadIdentity(filepath.Join(cfg.StateDir, "trust"))
	if err != nil {
		t.Fatal(err)
	}
	return id.Leaf().SerialNumber.String()
}

// sleepers is a sweep of short trials.
func sleepers(t *testing.T, n string) api.Submit {
	t.Helper()
	axis, err := space.ParseSet("i=0:" + n)
	if err != nil {
		t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return api.Submit{Project: "t", Space: points, Environ: os.Environ(), Task: grid.Task{
		Name: "test", Command: []string{"/bin/sh", "-c", "sleep 0.35", "sh"}, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries(), Grace: time.Second,
	}}
}

// TestSweepAcrossRenewals runs a sweep while the certificates of master and worker are renewed
// three times each.
func TestSweepAcrossRenewals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute)
	defer stop()
	c := startShort(t, ctx, 45*time.Second) // a machine that does much else may stand still for seconds
	v, err := c.client.Sweeps().Submit(ctx, sleepers(t, "600"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]bool{"m": {}, "w": {}}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for v.State != grid.SweepFinished || len(seen["m"]) < 4 || len(seen["w"]) < 4 {
		select {
		case <-tick.C:
		case err := <-c.done:
			t.Fatal(err)
		case <-ctx.Done():
			t.Fatalf("got sweep %+v and certificates %v", v, seen)
		}
		if v, err = c.client.Sweeps().Get(ctx, v.Sweep); err != nil {
			t.Fatal(err)
		}
		seen["m"][leaf(t, c.master)], seen["w"][leaf(t, c.worker)] = true, true
	}
	if v.Succeeded != 600 {
		t.Errorf("got %+v, want 600 trials that succeeded", v)
	}
	after, err := c.client.Sweeps().Submit(ctx, sleepers(t, "3")) // with connections that are new or old
	if err != nil {
		t.Fatal(err)
	}
	for after.State != grid.SweepFinished {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the node takes no trials any more")
		}
		if after, err = c.client.Sweeps().Get(ctx, after.Sweep); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOffForTooLong keeps a worker away from its master until its certificate has expired.
func TestOffForTooLong(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute)
	defer stop()
	c := startShort(t, ctx, 30*time.Second)
	job := sleepers(t, "1")
	wrote := filepath.Join(t.TempDir(), "pid")
	job.Task.Command = []string{"/bin/sh", "-c", "echo $$ >" + wrote + ".part; mv " + wrote + ".part " +
		wrote + "; exec sleep 600"}
	v, err := c.client.Sweeps().Submit(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	var program int
	for tick := time.NewTicker(50 * time.Millisecond); program == 0; <-tick.C {
		text, _ := os.ReadFile(wrote) // once it is there
		program, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		if ctx.Err() != nil {
			t.Fatal("the trial does not begin")
		}
	}
	c.node.Close()
	if syscall.Kill(program, 0) != nil {
		t.Fatal("the program did not outlive its agent")
	}
	expired(t, ctx, c.worker)
	if _, err := c.client.Sweeps().Cancel(ctx, v.Sweep, false); err != nil {
		t.Fatal(err)
	}
	_, err = node.OpenWorker(ctx, c.worker)
	var refusal *api.Error
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Msg, "expired on") ||
		!strings.Contains(refusal.Hint, "mlfnode join --seed") {
		t.Fatalf("got %v, want that the certificate expired, and what to do", err)
	}
	if syscall.Kill(program, 0) == nil {
		t.Error("the program of a node that needs a token goes on")
	}
	if _, err := node.Join(ctx, c.worker, c.address, c.token(t, ctx)); err != nil {
		t.Fatal(err)
	}
	again, err := node.OpenWorker(ctx, c.worker)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// TestExpiresWhileItRuns keeps the master away from a running worker until the worker's certificate
// has expired: the worker says so once the master is back, and ends.
func TestExpiresWhileItRuns(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute)
	defer stop()
	c := startShort(t, ctx, 30*time.Second)
	<-c.node.Working()
	c.masterNode.Close()
	expired(t, ctx, c.worker)
	var err error
	if c.masterNode, err = node.OpenMaster(ctx, c.master); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-c.done:
		var refusal *api.Error
		if !errors.As(err, &refusal) || !strings.Contains(refusal.Msg, "expired on") ||
			!strings.Contains(refusal.Hint, "mlfnode join --seed") {
			t.Errorf("got %v, want that the certificate expired, and what to do", err)
		}
	case <-ctx.Done():
		t.Fatal("the node goes on")
	}
}

// expired waits until the certificate of a node has expired.
func expired(t *testing.T, ctx context.Context, cfg config.Config) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !membership.Refused(cfg.StateDir) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the certificate does not expire")
		}
	}
}

// TestJoinLeavesNoToken starts a node that has joined with a token in its environment, which its
// programs must not find.
func TestJoinLeavesNoToken(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	state := t.TempDir()
	authority, err := trust.OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := authority.MakeToken(trust.TokenSpec{Role: trust.RoleNode})
	if err != nil {
		t.Fatal(err)
	}
	j, err := trust.NewJoin(filepath.Join(state, "trust"), token, "w")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := authority.Join(j.Request())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Accept(answer); err != nil {
		t.Fatal(err)
	}
	t.Setenv(membership.TokenVariable, token.Text())
	var out bytes.Buffer
	if code := run(t.Context(), &interrupts{}, []string{"--state-dir", state, "join"}, &out, &out); code == 0 {
		t.Errorf("a node that does not know where its master is ended well:\n%s", &out)
	}
	if os.Getenv(membership.TokenVariable) != "" {
		t.Errorf("the token is still in the environment:\n%s", &out)
	}
}

// TestForgottenNode revokes the certificate of a node that is connected, and asks on through a
// connection that it had before.
func TestForgottenNode(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 9*time.Minute)
	defer stop()
	c := startShort(t, ctx, 0)
	id, err := trust.LoadIdentity(filepath.Join(c.worker.StateDir, "trust"))
	if err != nil {
		t.Fatal(err)
	}
	asking := api.NewRemote([]string{c.address}, id.Client(), "")
	defer asking.Close()
	ask := func() error {
		_, err := api.Post[trust.Renewal](ctx, asking, api.PathCertificate, struct{}{})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	<-c.node.Working()
	if err := c.client.Members().Forget(ctx, "w"); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err == nil || !strings.Contains(err.Error(), "forgotten") {
		t.Errorf("through the connection that it had: got %v, want a refusal", err)
	}
	select {
	case err := <-c.done:
		if !strings.Contains(err.Error(), "it was forgotten") {
			t.Errorf("the node ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the node goes on")
	}
	c.node.Close()
	if !membership.Refused(c.worker.StateDir) {
		t.Error("the node does not know that it needs a token")
	}
	if _, err := node.Join(ctx, c.worker, c.address, c.token(t, ctx)); err != nil {
		t.Errorf("with a new token: %v", err)
	}
}
