package scheduling_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mlfnode/cluster/scheduling"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
)

// newAuthority founds a cluster of a master and the worker w1, in a folder.
func newAuthority(t *testing.T, dir string) *trust.Authority {
	t.Helper()
	a := openAuthority(t, dir)
	if _, err := a.IssueSelf("master"); err != nil {
		t.Fatal(err)
	}
	token, err := a.MakeToken(trust.TokenSpec{Role: trust.RoleNode})
	if err != nil {
		t.Fatal(err)
	}
	j, err := trust.NewJoin(t.TempDir(), token, "w1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Join(j.Request()); err != nil {
		t.Fatal(err)
	}
	return a
}

func openAuthority(t *testing.T, dir string) *trust.Authority {
	t.Helper()
	a, err := trust.OpenAuthority(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// drains returns what a registry says of each node of newAuthority.
func drains(r *scheduling.Registry) map[grid.NodeID]scheduling.Drain {
	all := map[grid.NodeID]scheduling.Drain{}
	for _, node := range []grid.NodeID{"master", "w1", "w2"} {
		if d := r.Drain(node); d.On {
			all[node] = d
		}
	}
	return all
}

func TestDrains(t *testing.T) {
	dir := t.TempDir()
	r := scheduling.New(newAuthority(t, dir), nil)
	want := map[grid.NodeID]scheduling.Drain{"w1": {On: true, Reason: "new disk", By: "eva"}, "master": {On: true}}
	for node, d := range want {
		wantErr(t, "drain", r.SetDrain(node, d), nil)
	}
	wantErr(t, "drain a node that is not there", r.SetDrain("w2", scheduling.Drain{On: true}), trust.ErrUnknownNode)
	if d := cmp.Diff(want, drains(scheduling.New(openAuthority(t, dir), nil))); d != "" {
		t.Errorf("drains after a restart (-want +got):\n%s", d)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "nodes.json"))
	if text := strings.Join(strings.Fields(string(stored)), ""); err != nil ||
		!strings.Contains(text, `"drain":{"on":true,"reason":"newdisk","by":"eva"}`) {
		t.Errorf("got %s, %v in the file, want the form of versions before", stored, err)
	}
	wantErr(t, "undrain", r.SetDrain("master", scheduling.Drain{}), nil)
	delete(want, "master")
	if d := cmp.Diff(want, drains(r)); d != "" {
		t.Errorf("drains (-want +got):\n%s", d)
	}
}

// TestWithheld withholds trials from parts of a node: for a while, beyond a restart, and until the
// node is to have all again.
func TestWithheld(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	clock := func() time.Time { return now }
	r := scheduling.New(newAuthority(t, dir), clock)
	for part, length := range map[grid.Scope]time.Duration{grid.ScopeGPUs: time.Hour,
		grid.ScopeContainers: time.Minute} {
		wantErr(t, "withhold", r.Withhold("w1", part, scheduling.Withheld{Reason: "broken", Until: now.Add(length)}),
			nil)
	}
	wantErr(t, "withhold from a node that is not there", r.Withhold("w2", grid.ScopeGPUs, scheduling.Withheld{}),
		trust.ErrUnknownNode)
	again := scheduling.New(openAuthority(t, dir), clock)
	if got := again.Withheld("w1"); len(got) != 2 || len(again.Withheld("w2")) != 0 || len(drains(again)) != 0 {
		t.Errorf("after a restart: got %v withheld, drains %v", got, drains(again))
	}
	now = now.Add(2 * time.Minute)
	if d := cmp.Diff(map[grid.Scope]string{grid.ScopeGPUs: "broken"}, again.Withheld("w1")); d != "" {
		t.Errorf("two minutes later (-want +got):\n%s", d)
	}
	wantErr(t, "undrain", again.SetDrain("w1", scheduling.Drain{}), nil)
	if got := again.Withheld("w1"); got != nil {
		t.Errorf("a node that is to have all trials again: got %v withheld", got)
	}
}

// TestDamagedDrain reads the record of a node that is not JSON of a drain: the node takes no
// trials, and says why, until it is undrained.
func TestDamagedDrain(t *testing.T) {
	a := newAuthority(t, t.TempDir())
	damage := func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage(`"yes"`), nil }
	wantErr(t, "damage", a.EditNodeData("w1", damage), nil)
	r := scheduling.New(a, nil)
	if d := r.Drain("w1"); !d.On || !strings.Contains(d.Reason, "damaged") {
		t.Errorf("got %+v, want a node that takes no trials, with the reason", d)
	}
	wantErr(t, "undrain", r.SetDrain("w1", scheduling.Drain{}), nil)
	if d := r.Drain("w1"); d.On {
		t.Errorf("undrained: got %+v", d)
	}
}
