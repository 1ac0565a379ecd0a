package master

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSubmissionSentAgain sends one submission many times, one after the other and at once, also to
// the next life of the master: it makes one sweep. Other tokens, and none, make others.
func TestSubmissionSentAgain(t *testing.T) {
	dir := t.TempDir()
	send := func(c *testMaster, token string, n int) map[grid.SweepID]bool {
		ids, mu, wg := map[grid.SweepID]bool{}, sync.Mutex{}, sync.WaitGroup{}
		for range n {
			wg.Go(func() {
				s := api.Submit{Token: token, Project: "t", Space: spaceOf(t, 1), Task: newSweep(t, "", 1).Task}
				r, err := c.Submit(context.Background(), &s)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				ids[r.Sweep.ID] = true
			})
		}
		wg.Wait()
		return ids
	}
	c := restartMaster(t, dir, 1)
	all := map[grid.SweepID]bool{}
	for i := range 5 {
		ids := send(c, fmt.Sprint("token", i), 1+i*4)
		for id := range ids {
			all[id] = true
		}
		if len(ids) != 1 {
			t.Errorf("one submission made %d sweeps: %v", len(ids), ids)
		}
	}
	if len(all) != 5 {
		t.Errorf("five submissions made %d sweeps", len(all))
	}
	if ids := send(c, "", 3); len(ids) != 3 {
		t.Errorf("three submissions without a token made %d sweeps", len(ids))
	}
	c.stopMaster()
	c = restartMaster(t, dir, 1)
	for i := range 5 {
		for id := range send(c, fmt.Sprint("token", i), 2) {
			if !all[id] {
				t.Errorf("after a restart the submission made another sweep, %s", id)
			}
		}
	}
}

// TestSubmissionAfterADoubt loses the answer of the store although the record was stored, and sends
// the submission again.
func TestSubmissionAfterADoubt(t *testing.T) {
	c := startMaster(t, 1)
	s := newSweep(t, "t-7", 1)
	s.Token = "doubtful"
	if _, err := c.store.Records.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c.sweepTable.mu.Lock()
	delete(c.sweeps, "t-7") // nobody has been told of it yet
	c.sweepTable.mu.Unlock()
	c.submissions.lock <- struct{}{}
	c.recordUncertain("doubtful", "t-7")
	<-c.submissions.lock
	r, err := c.Submit(t.Context(), &api.Submit{Token: "doubtful", Project: "t", Space: spaceOf(t, 1), Task: s.Task})
	if err != nil || r.Sweep.ID != "t-7" {
		t.Errorf("got %v, %v; want the sweep that was stored", r.Sweep, err)
	}
}

// TestSubmissionWithoutItsBundle is refused with a code that makes the client send the bundle
// again.
func TestSubmissionWithoutItsBundle(t *testing.T) {
	c := startMaster(t, 1)
	digest := strings.Repeat("ab", 32)
	s := api.Submit{Project: "t", Space: spaceOf(t, 1), Task: newSweep(t, "", 1).Task, Bundle: digest}
	_, err := c.Submit(t.Context(), &s)
	if refusal := (*api.Error)(nil); !errors.As(err, &refusal) || refusal.Code != api.CodeNoBundle {
		t.Errorf("got %v, want the code %s", err, api.CodeNoBundle)
	}
	if err := c.store.Bundles.Put(t.Context(), digest, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(t.Context(), &s); err != nil {
		t.Error(err)
	}
}

// TestNumbersGoOn checks that each sweep has a higher number than those before, whatever their
// projects, and whatever the clock said.
func TestNumbersGoOn(t *testing.T) {
	dir := t.TempDir()
	last := int64(0)
	for range 2 {
		c := restartMaster(t, dir, 1)
		for _, project := range []string{"a", "b", "a", "c"} {
			id := c.submit(1, func(s *api.Submit) { s.Project = project })
			r, _ := c.Sweep(id)
			if r.Sweep.Number <= last {
				t.Errorf("%s has the number %d behind %d", id, r.Sweep.Number, last)
			}
			last = r.Sweep.Number
		}
		c.stopMaster()
	}
	// by a clock that was wrong, and of an earlier version
	old := &grid.Sweep{ID: "z-9", Submitted: time.Now().Add(30 * 24 * time.Hour)}
	fresh := &grid.Sweep{ID: "a-1", Number: 1, Submitted: time.Now()}
	if fresh.Compare(old) <= 0 {
		t.Error("a sweep of a wrong clock counts as the newer one")
	}
}

// TestRecordsThatNobodyCanObey checks that sweeps that were stored by a program without checks are
// cancelled with the reason, and that others run beside them.
func TestRecordsThatNobodyCanObey(t *testing.T) {
	for name, r := range map[string]grid.Resources{
		"negative": {CPUs: -5000}, "nothing": {}, "negative memory": {CPUs: grid.One, Memory: -1},
		"too much": {CPUs: grid.MilliOf(1e300)},
	} {
		t.Run(name, func(t *testing.T) {
			c := startMaster(t, 2)
			s := newSweep(t, "bad-1", 3)
			s.Task.Resources = r
			if _, err := c.store.Records.Create(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			c.waitFor("the sweep is cancelled", func(*scheduler) bool {
				r, _ := c.Sweep("bad-1")
				return r.Sweep != nil && r.Sweep.State == grid.SweepCancelled && r.Sweep.Problem != ""
			})
			good := c.submit(3, nil)
			c.waitForLeases(good, 3)
			if all, err := c.store.Queue.List(t.Context()); err != nil || len(all) != 3 {
				t.Errorf("in the queue: %v, %v; want the leases of the other sweep alone", all, err)
			}
		})
	}
}
