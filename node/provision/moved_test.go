package provision

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid/gridtest"
	"mlfnode/node"
	"mlfnode/node/config"
)

// TestMovedMasterIsPutAside has a machine keep the state of a master that was moved. As a worker,
// or with no role, it keeps that under another name; as a master it does not start.
func TestMovedMasterIsPutAside(t *testing.T) {
	m := newMachine(t, program(t))
	ports := gridtest.FreePorts(t, "127.0.0.66", 3)
	moved := func() {
		t.Helper()
		cfg, err := config.Load("")
		if err != nil {
			t.Fatal(err)
		}
		cfg.StateDir, cfg.Node, cfg.Logger = m.State(), "old", slog.New(slog.NewTextHandler(t.Output(), nil))
		cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Worker = "127.0.0.66", "127.0.0.66", false
		cfg.Cluster.Ports = config.Ports{API: ports[0], NATS: ports[1], Gossip: ports[2]}
		n, err := node.OpenMaster(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		n.Stop()
		n.Close()
		if err := node.Retire(cfg); err != nil {
			t.Fatal(err)
		}
	}
	moved()
	if s := m.mustAct(protocol.ActionInspect, protocol.Request{}).Observed; !s.Moved || s.Joined ||
		s.Role != "master" || s.Cluster == "" {
		t.Errorf("got %+v of a master that was moved", s)
	}
	want := func(r protocol.Response, aside string) {
		t.Helper()
		if said := strings.Join(r.Notes, "\n"); !strings.Contains(said,
			"the state of the master is kept there in "+aside) {
			t.Errorf("got notes %q, want %s in them", said, aside)
		}
		if _, err := os.Stat(filepath.Join(aside, "trust", "ca.key")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(m.State(), "trust")); err == nil {
			t.Error("the state is still in its place")
		}
	}
	m.mustAct(protocol.ActionStop, protocol.Request{})
	if !node.Moved(config.Config{StateDir: m.State()}) {
		t.Fatal("a stop puts the state aside")
	}
	want(m.mustAct(protocol.ActionStop, protocol.Request{PutAside: true}), m.State()+".moved")
	moved()
	worker := protocol.Request{Desired: &protocol.Desired{
		Role: "worker", Config: settings("127.0.0.66", "old", ports), Seeds: []string{"127.0.0.67:1"},
	}}
	want(m.act(protocol.ActionStart, worker), m.State()+".moved-2") // there is no master to join
}
