package cluster

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

// event is what memberlist tells of a node.
func event(name string, started time.Time, leaving bool) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 1), Port: 7422,
		Meta: encodeMeta(Self{Version: "1"}, started, leaving, 512)}
}

func TestTableForgets(t *testing.T) {
	tab, now := newTable("self"), born
	tab.update(event("self", born, false), Alive, now)
	tab.update(event("gone", born, true), Dead, now.Add(-time.Second))
	if m, _ := tab.find("gone"); m.State != Left {
		t.Errorf("got %s for one that said goodbye", m.State)
	}
	for i := range maxEnded + 100 {
		tab.update(event(fmt.Sprintf("n%04d", i), born, false), Dead, now)
	}
	if n := len(tab.members(now)); n != maxEnded+1 {
		t.Errorf("got %d members, want %d that ended and this node", n, maxEnded)
	}
	later := now.Add(rememberDead + time.Second)
	if n := len(tab.members(later)); n != 1 {
		t.Errorf("after an hour: got %d members, want this node alone", n)
	}
	for i := range maxMembers + 10 {
		tab.update(event(fmt.Sprintf("m%04d", i), born, false), Alive, later)
	}
	if n := len(tab.members(later)); n != maxMembers {
		t.Errorf("got %d members, want at most %d", n, maxMembers)
	}
}

func TestTableTellsLivesApart(t *testing.T) {
	tab := newTable("self")
	later := born.Add(time.Minute)
	for _, step := range []struct {
		what  string
		do    func()
		state State // "" for no change
	}{
		{"a new member", func() { tab.update(event("a", born, false), Alive, born) }, Alive},
		{"nothing new", func() { tab.update(event("a", born, false), Alive, later) }, ""},
		{"unreachable", func() { tab.probed("a", false, later) }, Suspect},
		{"still unreachable", func() { tab.probed("a", false, later) }, ""},
		{"reachable", func() { tab.probed("a", true, later) }, Alive},
		{"another life", func() { tab.update(event("a", later, false), Alive, later) }, Alive},
		{"dead and back before anybody looked", func() {
			tab.update(event("a", later, false), Dead, later)
			tab.update(event("a", later, false), Alive, later)
		}, ""},
		{"dead", func() { tab.update(event("a", later, false), Dead, later) }, Dead},
		{"a probe of a dead member", func() { tab.probed("a", true, later) }, ""},
		{"others say that another life of it left", func() {
			tab.receive([]*detail{{Node: "a", Started: born.UnixMilli(), Left: true}})
		}, ""},
		{"others say that it left", func() {
			tab.receive([]*detail{{Node: "a", Started: later.UnixMilli(), Left: true}})
		}, Left},
		{"nobody", func() { tab.probed("b", false, later) }, ""},
	} {
		step.do()
		got := tab.changes()
		if step.state == "" && len(got) != 0 || step.state != "" && (len(got) != 1 || got[0].State != step.state) {
			t.Errorf("%s: got %+v, want state %q", step.what, got, step.state)
		}
	}
	told := decodeDetails(encodeDetails(tab.details()))
	if len(told) != 1 || !told[0].Left || told[0].Started != later.UnixMilli() {
		t.Errorf("got %+v to pass on, want the goodbye", told)
	}
}

func TestTableTakesNewerDetailsOfMembers(t *testing.T) {
	tab := newTable("self")
	record := func(node grid.NodeID, started time.Time, serial uint64, load float64) *detail {
		return newDetail(node, started, Self{Load: load}, serial)
	}
	tab.update(event("a", born, false), Alive, born)
	steps := []struct {
		of   *detail
		want float64
	}{
		{record("stranger", born, 1, 9), 0},
		{record("a", born, 2, 2), 2},
		{record("a", born, 1, 1), 2},
		{record("a", born.Add(-time.Hour), 7, 7), 2},
		{record("a", born, 3, 3), 3},
	}
	for i, step := range steps {
		tab.receive([]*detail{step.of})
		if m, _ := tab.find("a"); m.Load != step.want {
			t.Errorf("step %d: got load %v, want %v", i, m.Load, step.want)
		}
	}
	if n := len(tab.details()); n != 1 {
		t.Errorf("got %d records to pass on, want 1", n)
	}
	tab.update(event("a", born.Add(time.Hour), false), Alive, born)
	if m, _ := tab.find("a"); m.Load != 0 {
		t.Errorf("another life: got load %v of the old one", m.Load)
	}
}
