package cluster

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

func node(name string, state memberlist.NodeStateType, started time.Time) *memberlist.Node {
	return &memberlist.Node{Name: name, Addr: net.IPv4(10, 0, 0, 1), Port: 7422, State: state, Meta: encodeMeta(Self{Version: "1"}, started, 512)}
}

func TestTableForgets(t *testing.T) {
	tab, now := newTable("self"), born
	var picture []*memberlist.Node
	for i := range maxEnded + 100 {
		picture = append(picture, node(fmt.Sprintf("n%04d", i), memberlist.StateDead, born))
	}
	tab.apply(append(picture, node("self", memberlist.StateAlive, born), node("gone", memberlist.StateLeft, born)), now)
	if n := len(tab.members(now)); n != maxEnded+1 {
		t.Errorf("got %d members, want %d that ended and this node", n, maxEnded)
	}
	if n := len(tab.members(now.Add(rememberDead + time.Second))); n != 1 {
		t.Errorf("after an hour: got %d members, want this node alone", n)
	}
	picture = picture[:0]
	for i := range maxMembers + 10 {
		picture = append(picture, node(fmt.Sprintf("m%04d", i), memberlist.StateAlive, born))
	}
	tab.apply(picture, now)
	if n := len(tab.members(now)); n != maxMembers {
		t.Errorf("got %d members, want at most %d", n, maxMembers)
	}
}

func TestTableTellsLivesApart(t *testing.T) {
	tab := newTable("self")
	alive := func(started time.Time) []*memberlist.Node {
		return []*memberlist.Node{node("a", memberlist.StateAlive, started)}
	}
	if got := tab.apply(alive(born), born); len(got) != 1 || got[0].State != Alive {
		t.Errorf("a new member: got %+v", got)
	}
	if got := tab.apply(alive(born), born.Add(time.Second)); len(got) != 0 {
		t.Errorf("nothing new: got %+v", got)
	}
	later := born.Add(time.Minute)
	if got := tab.apply(alive(later), later); len(got) != 1 || !got[0].Started.Equal(later) || !got[0].Since.Equal(later) {
		t.Errorf("another life: got %+v", got)
	}
	if got := tab.apply(nil, later); len(got) != 1 || got[0].State != Dead {
		t.Errorf("not in the picture: got %+v", got)
	}
}

func TestTableTakesNewerDetailsOfMembers(t *testing.T) {
	tab := newTable("self")
	record := func(node grid.NodeID, started time.Time, serial uint64, load float64) *detail {
		return newDetail(node, started, Self{Load: load}, serial)
	}
	picture := []*memberlist.Node{node("a", memberlist.StateAlive, born)}
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
		tab.apply(picture, born)
		if m, _ := tab.find("a"); m.Load != step.want {
			t.Errorf("step %d: got load %v, want %v", i, m.Load, step.want)
		}
	}
	if n := len(tab.details()); n != 1 {
		t.Errorf("got %d records to pass on, want 1", n)
	}
	tab.apply([]*memberlist.Node{node("a", memberlist.StateAlive, born.Add(time.Hour))}, born)
	if m, _ := tab.find("a"); m.Load != 0 {
		t.Errorf("another life: got load %v of the old one", m.Load)
	}
	tab.receive(make([]*detail, 0))
	for range 3 {
		tab.receive(decodeDetails(encodeDetails(repeat(record("a", born, 9, 9), maxMembers))))
	}
	if len(tab.pending) > maxMembers {
		t.Errorf("got %d records that wait, want at most %d", len(tab.pending), maxMembers)
	}
}

func repeat(d *detail, n int) (all []*detail) {
	for range n {
		all = append(all, d)
	}
	return all
}
