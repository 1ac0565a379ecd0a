package main

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// TestMasterOnTwoNetworks has a worker that does not reach what the master advertises, but the
// address by which it joined.
func TestMasterOnTwoNetworks(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	settings := func(name, bind, advertise string) config.Config {
		cfg, err := config.Load("")
		if err != nil {
			t.Fatal(err)
		}
		cfg.StateDir, cfg.Node = filepath.Join(t.TempDir(), name), "m"
		if name != "m" {
			cfg.Node = "w"
		}
		cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Ports = bind, advertise, config.Ports{}
		return cfg
	}
	cfg := settings("m", "127.0.0.1", "127.77.1.1") // nobody listens there
	l, err := net.Listen("tcp", "127.0.0.1:0")      // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cluster.Ports.API = l.Addr().(*net.TCPAddr).Port
	l.Close()
	master, err := node.OpenMaster(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	s, _ := node.At(ctx, cfg)
	if s == nil {
		t.Fatal("the master does not answer")
	}
	defer s.Close()
	made, err := s.Client().Access().MakeToken(ctx, api.NewToken{Role: "node", Uses: 1, User: "none"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	own := settings("w", "127.0.0.78", "127.0.0.78")
	if _, err := node.Join(ctx, own, l.Addr().String(), token); err != nil {
		t.Fatal(err)
	}
	worker, err := node.OpenWorker(ctx, own)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	at, _ := node.At(ctx, own)
	if at == nil {
		t.Fatal("the worker does not answer")
	}
	defer at.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	sees := func(c *api.Client, name grid.NodeID) bool {
		all, err := c.Members().List(ctx)
		return err == nil && checkAlive(all, name) == nil
	}
	for !sees(s.Client(), "w") || !sees(at.Client(), "m") {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("master and worker do not see each other")
		}
	}
	if err := checkAlive(nil, "w"); err == nil {
		t.Error("a node that gossip does not see is taken for well")
	}
}
