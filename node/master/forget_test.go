package master

import (
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// TestForgottenNode takes a node out of the cluster that holds trials, at each stage of its being there. They run elsewhere, also those
// that wait for their node however long it is away, and count no failure.
func TestForgottenNode(t *testing.T) {
	t.Parallel()
	for _, noReplace := range []bool{false, true} {
		for name, forget := range map[string]func(c *stage, w *world, dir string) *stage{
			"while it is there": func(c *stage, w *world, dir string) *stage {
				w.forget("b")
				return c
			},
			"when it was lost": func(c *stage, w *world, dir string) *stage {
				w.set("b", cluster.Dead)
				c.until("the node is lost", func(*state) bool { return !c.peers.hears("b", time.Now()) })
				w.forget("b")
				return c
			},
			"and the master ended before it heard": func(c *stage, w *world, dir string) *stage {
				w.forget("b")
				c.end()
				w.set("b", cluster.Dead)
				return perform(t, dir, 1, w.nodes())
			},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld()
				dir := t.TempDir()
				c := perform(t, dir, 1, w.nodes())
				id := c.submit(1, func(s *api.Submit) { s.Task.NoReplace = noReplace })
				h := c.pulled(id)
				c.works("b", h, "", 0)
				c.begins("b", h)
				c = forget(c, w, dir)
				again := c.pulled(id)
				if again.ID == h.ID { // the queue of a master that has started hands out again what it had handed out
					again = c.pulled(id)
				}
				if again.ID == h.ID || again.Attempt != 2 {
					t.Errorf("got lease %s with attempt %d, want another one with attempt 2", again.ID, again.Attempt)
				}
				f := c.trial(id, 0).Failures
				if delete(f, grid.ClassHalt); len(f) > 0 {
					t.Errorf("on the trial's record: %v, want nothing that counts", f)
				}
				c.works("d", again, c.begins("d", again), time.Second)
				c.tells("d", again, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 2, Run: c.trial(id, 0).Run, Result: &grid.Result{Started: 1}})
				c.ended(id)
			})
		}
	}
}

// TestForgottenNodeLeavesNothing: what trials have shown of a node goes with it.
func TestForgottenNodeLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c := perform(t, t.TempDir(), 1, w.nodes())
	c.says("b", "x")
	c.says("d", "x")
	c.on(func(s *state) {
		for _, node := range []grid.NodeID{"b", "d"} {
			s.health.note(&history.Transition{Sweep: "t-1", Index: 1, Node: node, Change: grid.Retry, Class: grid.ClassStart, Ended: 1})
		}
	})
	w.forget("b")
	c.until("the node is forgotten", func(s *state) bool {
		p := s.health.trials["t-1"][1]
		return len(s.health.strikes) == 1 && !p.failed["b"] && p.failed["d"]
	})
}

// TestForgottenNodeBeats has a node that was taken out of the cluster beat on, by a connection that has not ended yet.
func TestForgottenNodeBeats(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c := perform(t, t.TempDir(), 1, w.nodes())
	w.forget("b")
	if o := c.Master.beat("b", &jetstream.Heartbeat{Start: "x"}); !o.Drain || o.Keys != 0 || c.peers.hears("b", time.Now()) {
		t.Errorf("got the orders %+v, heard of: %v; want it to take nothing, and nothing taken from it", o, c.peers.hears("b", time.Now()))
	}
}
