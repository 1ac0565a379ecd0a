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

// TestForgottenNode takes a node that holds trials out of the cluster, at each stage of its
// presence. They run elsewhere, including those that wait for their node however long it is away,
// and count no failure.
func TestForgottenNode(t *testing.T) {
	t.Parallel()
	for _, noReplace := range []bool{false, true} {
		for name, forget := range map[string]func(c *testMaster, w *fakeCluster, dir string) *testMaster{
			"while it is there": func(c *testMaster, w *fakeCluster, dir string) *testMaster {
				w.remove("b")
				return c
			},
			"when it was lost": func(c *testMaster, w *fakeCluster, dir string) *testMaster {
				w.setState("b", cluster.Dead)
				c.waitFor("the node is lost", func(*scheduler) bool { return !c.nodes.isResponsive("b", time.Now()) })
				w.remove("b")
				return c
			},
			"and the master ended before it heard": func(c *testMaster, w *fakeCluster, dir string) *testMaster {
				w.remove("b")
				c.stopMaster()
				w.setState("b", cluster.Dead)
				return startWithNodes(t, dir, 1, w.nodes())
			},
		} {
			t.Run(name, func(t *testing.T) {
				w := newFakeCluster()
				dir := t.TempDir()
				c := startWithNodes(t, dir, 1, w.nodes())
				id := c.submit(1, func(s *api.Submit) { s.Task.NoReplace = noReplace })
				h := c.workers.waitForLease(id)
				c.workers.heartbeatRunning("b", h, "", 0)
				c.workers.startTrial("b", h)
				c = forget(c, w, dir)
				again := c.workers.waitForLease(id)
				if again.ID == h.ID { // the queue of a master that has started hands out again what it had handed out
					again = c.workers.waitForLease(id)
				}
				if again.ID == h.ID || again.Attempt != 2 {
					t.Errorf("got lease %s with attempt %d, want another one with attempt 2", again.ID, again.Attempt)
				}
				f := c.trial(id, 0).Failures
				if delete(f, grid.ClassHalt); len(f) > 0 {
					t.Errorf("on the trial's record: %v, want nothing that counts", f)
				}
				c.workers.heartbeatRunning("d", again, c.workers.startTrial("d", again), time.Second)
				c.workers.publishEvent("d", again,
					grid.Event{Kind: grid.Finished, Index: 0, Attempt: 2, Run: c.trial(id, 0).Run,
						Result: &grid.Result{Started: 1}})
				c.waitUntilFinished(id)
			})
		}
	}
}

// TestForgottenNodeLeavesNothing checks that what trials have proven of a node is forgotten with
// it.
func TestForgottenNodeLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	c.workers.heartbeat("b", "x")
	c.workers.heartbeat("d", "x")
	c.inLoop(func(s *scheduler) {
		for _, node := range []grid.NodeID{"b", "d"} {
			s.health.record(&history.Transition{Sweep: "t-1", Index: 1, Node: node, Change: grid.Retry,
				Class: grid.ClassStart, Ended: 1})
		}
	})
	w.remove("b")
	c.waitFor("the node is forgotten", func(s *scheduler) bool {
		p := s.health.trials["t-1"][1]
		return len(s.health.streaks) == 1 && !p.failed["b"] && p.failed["d"]
	})
}

// TestForgottenNodeBeats lets a node that was taken out of the cluster send further heartbeats,
// over a connection that has not ended yet.
func TestForgottenNodeBeats(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	w.remove("b")
	if o := c.Master.handleHeartbeat("b", &jetstream.Heartbeat{Start: "x"}); !o.Drain || o.Keys != 0 ||
		c.nodes.isResponsive("b", time.Now()) {
		t.Errorf("got the orders %+v, heard of: %v; want it to take nothing, and nothing taken from it", o,
			c.nodes.isResponsive("b", time.Now()))
	}
}
