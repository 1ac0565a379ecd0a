package master

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

func TestLeaseSizeFollowsTheLengthOfTrials(t *testing.T) {
	for _, c := range []struct {
		name  string
		took  time.Duration
		sizes []int64 // of leases, one after the other
	}{
		{"not known yet", 0, []int64{1, 1, 1, 1, 1, 1, 1}},
		{"a millisecond", time.Millisecond, []int64{8, 64, 500, 500}},
		{"nothing at all", time.Nanosecond, []int64{8, 64, 512, 4096, 32768, 65536, 65536}},
		{"a tenth of a second", 100 * time.Millisecond, []int64{5, 5, 5}},
		{"a third of a second", 333 * time.Millisecond, []int64{1, 1, 1}},
		{"ten days", 240 * time.Hour, []int64{1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFeed(newSweep(t, "t-1", 100_000_000))
			if c.took > 0 {
				f.pace.observe(c.took)
			}
			var got []int64
			for seq := range uint64(len(c.sizes)) {
				l, ok := f.nextLease(f.baseNeed(), time.Now(), 4)
				if !ok {
					t.Fatal("nothing to lease")
				}
				f.addPublished(leaseIDOf(seq), l)
				got = append(got, l.hi-l.lo)
			}
			if !slices.Equal(got, c.sizes) {
				t.Errorf("sizes of leases: got %d, want %d", got, c.sizes)
			}
		})
	}
}

func TestLeaseSizeShrinksTowardsTheEnd(t *testing.T) {
	f := newFeed(newSweep(t, "t-1", 1000))
	f.pace = trialPace{average: time.Millisecond, lastSize: 500}
	var got []int64
	for seq := uint64(0); ; seq++ {
		l, ok := f.nextLease(f.baseNeed(), time.Now(), 4)
		if !ok {
			break
		}
		f.addPublished(leaseIDOf(seq), l)
		got = append(got, l.hi-l.lo)
	}
	if got[0] != 125 || got[len(got)-1] != 1 || !slices.IsSortedFunc(got, func(a, b int64) int { return int(b - a) }) {
		t.Errorf("sizes of leases: got %d, want them to fall from an eighth of the sweep (4 slots) to 1", got)
	}
}

func TestPaceFollowsTrialsThatBecomeLonger(t *testing.T) {
	var p trialPace
	for range 100 {
		p.observe(time.Millisecond)
	}
	for range 50 {
		p.observe(time.Second)
	}
	if p.average < 900*time.Millisecond || p.average > time.Second {
		t.Errorf("average after 50 trials of a second: got %v", p.average)
	}
	p.observe(-time.Hour) // a clock that was set back
	if p.average <= 0 {
		t.Errorf("average after a negative time: got %v, want a positive one", p.average)
	}
}

// TestFeedLosesNothing finishes, drops, loses and retries leases in any order: no trial is ever in
// two leases, and in the end each is done.
func TestFeedLosesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sweep := newSweep(t, "t-1", rapid.IntRange(1, 40).Draw(rt, "points"))
		sweep.MaxParallel = rapid.IntRange(0, 3).Draw(rt, "max parallel")
		sweep.Task.Order = rapid.SampledFrom([]grid.Order{grid.OrderIndex, grid.OrderSpread}).Draw(rt, "order")
		f := newFeed(sweep)
		trials := map[int64]*grid.Trial{}
		now, seq := time.UnixMicro(1_700_000_000_000_000), uint64(0)
		event := func(l lease, i int64, kind grid.EventKind, class grid.Class) {
			if trials[i] == nil {
				trials[i] = &grid.Trial{Index: i}
			}
			seq++
			e := grid.Event{Kind: kind, Index: i, Attempt: l.attempt, Run: string(rune(seq)), Time: now.UnixMicro()}
			if kind == grid.Finished {
				e.Result = &grid.Result{Class: class, Started: now.UnixMicro()}
			}
			tr := trials[i]
			if c := tr.Apply(grid.Retries{grid.ClassExit: 1}, "n", &e); c != grid.Ignored && c != grid.Superseded {
				f.apply(&history.Transition{Index: i, Change: c, State: tr.State, Attempts: tr.Attempts, Class: class},
					now)
			}
		}
		for step := 0; !f.complete(); step++ {
			if step > 5000 {
				rt.Fatalf("not complete: %d of %d done, leases %v, %d wait", f.done.Count(), f.count,
					f.leases, f.retries.len())
			}
			now = now.Add(time.Second)
			l, ok := f.nextLease(f.baseNeed(), now, 2)
			if ok && (len(f.leases) == 0 || rapid.Bool().Draw(rt, "lease")) {
				seq++
				checkDisjoint(rt, f, l)
				f.addPublished(leaseIDOf(seq), l)
				if m := sweep.MaxParallel; m > 0 && len(f.leases) > m {
					rt.Fatalf("leases: got %d with max_parallel %d", len(f.leases), m)
				}
				continue
			}
			open := slices.Sorted(maps.Keys(f.leases))
			if len(open) == 0 {
				continue // waits for a backoff
			}
			s := rapid.SampledFrom(open).Draw(rt, "which")
			if l = f.leases[s]; l.hi-l.lo > 1 && rapid.IntRange(0, 4).Draw(rt, "give back") == 0 {
				f.shortenLease(s, rapid.Int64Range(l.lo+1, l.hi-1).Draw(rt, "from"))
				continue
			}
			for i := l.lo; i < l.hi; i++ {
				// Late in a run everything works, so that it comes to an end.
				how := rapid.IntRange(0, 5).Draw(rt, "how")
				switch {
				case how == 0 && step < 200: // never ran
				case how == 1 && step < 200: // began, and was lost with its node
					event(l, i, grid.Started, "")
				case how == 2 && step < 200:
					event(l, i, grid.Finished, grid.ClassHalt)
				case how == 3:
					event(l, i, grid.Finished, grid.ClassExit)
				default:
					event(l, i, grid.Finished, grid.ClassNone)
				}
			}
			f.dropLease(s)
		}
	})
}

// TestSpreadFeed leases trials from all over the sweep, also when it is extended and leases are
// lost, and each of them once.
func TestSpreadFeed(t *testing.T) {
	sweep := newSweep(t, "t-1", 100_000)
	sweep.Task.Order = grid.OrderSpread
	f := newFeed(sweep)
	f.pace.observe(time.Millisecond)
	now, seq := time.Now(), uint64(0)
	thirds := func() (counts [3]int64) {
		for k := range counts {
			n := int64(0)
			f.assigned.Gaps(f.count*int64(k)/3, f.count*int64(k+1)/3, func(g ranges.Range) { n += g.Hi - g.Lo })
			counts[k] = f.count/3 - n
		}
		return counts
	}
	lease := func(until int64) {
		t.Helper()
		for f.assigned.Count() < until {
			l, ok := f.nextLease(f.baseNeed(), now, 4)
			if !ok {
				t.Fatalf("nothing to lease after %d trials", f.assigned.Count())
			}
			for _, o := range f.leases {
				if l.lo < o.hi && o.lo < l.hi {
					t.Fatalf("[%d,%d) overlaps [%d,%d)", l.lo, l.hi, o.lo, o.hi)
				}
			}
			seq++
			f.addPublished(leaseIDOf(seq), l)
			if seq%10 == 0 { // its node is lost
				f.dropLease(leaseIDOf(seq))
				continue
			}
			for i := l.lo; i < l.hi; i++ {
				f.apply(&history.Transition{Index: i, Change: grid.Done, Started: 1, Ended: 1000}, now)
			}
			f.dropLease(leaseIDOf(seq))
		}
	}
	even := func(share int64) {
		t.Helper()
		for k, n := range thirds() {
			if want := f.count / 3 / share; n < want*9/10 || n > want*11/10 {
				t.Errorf("of the %d. third of %d trials %d have run, want about %d", k+1, f.count, n, want)
			}
		}
	}
	lease(20_000)
	even(5)
	lease(50_000)
	even(2)
	f.setSweep(func() *grid.Sweep {
		s := newSweep(t, "t-1", 150_000)
		s.Task.Order = grid.OrderSpread
		return s
	}())
	lease(150_000)
	if _, ok := f.nextLease(f.baseNeed(), now, 4); ok || !f.complete() {
		t.Errorf("%d of %d trials are done, and more are leased: %v", f.done.Count(), f.count, ok)
	}
}

func checkDisjoint(t *rapid.T, f *feed, l lease) {
	t.Helper()
	for seq, o := range f.leases {
		if l.lo < o.hi && o.lo < l.hi {
			t.Fatalf("lease [%d,%d) overlaps lease %s [%d,%d)", l.lo, l.hi, seq, o.lo, o.hi)
		}
	}
	for i := l.lo; i < l.hi; i++ {
		if f.done.Has(i) {
			t.Fatalf("trial %d is done and leased again", i)
		}
	}
}

func TestQueueStaysShallow(t *testing.T) {
	c := startMaster(t, 4)
	id := c.submit(1_000_000_000, nil)
	for round := range 20 {
		c.waitForLeases(id, queueDepth*4)
		if all, err := c.store.Queue.List(t.Context()); err != nil || len(all) != queueDepth*4 {
			t.Fatalf("round %d: got %d leases in the queue, %v; want %d", round, len(all), err, queueDepth*4)
		}
		h := c.workers.takeLease(id)
		if round == 0 {
			c.workers.finishLease(h, grid.ClassNone, time.Millisecond) // 8 trials; later leases are large
			continue
		}
		c.workers.releaseLease(h)
	}
}

func TestLeasesGrowWhileTrialsAreShort(t *testing.T) {
	c := startMaster(t, 1)
	long, short := c.submit(100_000, nil), c.submit(100_000, func(s *api.Submit) { s.Priority = 1 })
	var longest, widest int64
	for range 8 {
		h := c.workers.waitAndTakeLease(short)
		widest = max(widest, h.Hi-h.Lo)
		c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
		h = c.workers.waitAndTakeLease(long)
		longest = h.Hi - h.Lo
		c.workers.finishLease(h, grid.ClassNone, time.Minute)
	}
	if longest != 1 {
		t.Errorf("lease of a sweep whose trials take a minute: got %d trials, want 1", longest)
	}
	if widest < 300 || widest > 500 {
		t.Errorf("widest lease of trials of a millisecond: got %d trials, want about half a second's worth", widest)
	}
}

// TestTaskThatFitsNowhere submits a task that no node of the cluster can run: it must neither be
// leased nor hold up others.
func TestTaskThatFitsNowhere(t *testing.T) {
	c := startMaster(t, 2)
	small := c.submit(10, nil)
	wide := newSweep(t, "wide-1", 10)
	wide.Task.Resources.CPUs = 3 * grid.One
	if _, err := c.store.Records.Create(t.Context(), wide); err != nil {
		t.Fatal(err)
	}
	c.waitForLeases(wide.ID, 0)
	c.workers.finishLease(c.workers.waitAndTakeLease(small), grid.ClassNone, time.Millisecond)
	c.waitForLeases(small, queueDepth*2)
}

// TestSuspectsAreLeasedOneByOne requeues a lease of a dead node: the trials that it may have
// started come as further attempts.
func TestSuspectsAreLeasedOneByOne(t *testing.T) {
	f, now := newFeed(newSweep(t, "t-1", 100)), time.Now()
	f.addPublished("1", lease{lo: 0, hi: 100, attempt: 1, since: now})
	f.done.Add(0, 10)
	f.requeueOneByOne("1")
	f.dropLease("1")
	var got []lease
	for seq := uint64(2); ; seq++ {
		l, ok := f.nextLease(f.baseNeed(), now, 4)
		if !ok {
			break
		}
		f.addPublished(leaseIDOf(seq), l)
		got = append(got, l)
	}
	for i, l := range got[:maxUnreported] {
		if l.lo != 10+int64(i) || l.hi != l.lo+1 || l.attempt != 2 {
			t.Errorf("lease %d: got [%d,%d) attempt %d, want trial %d for the second time", i, l.lo,
				l.hi, l.attempt, 10+i)
		}
	}
	next := int64(10 + maxUnreported)
	for _, l := range got[maxUnreported:] {
		if l.lo != next || l.attempt != 1 {
			t.Errorf("got [%d,%d) attempt %d, want the others as they were", l.lo, l.hi, l.attempt)
		}
		next = l.hi
	}
	if next != 100 {
		t.Errorf("leased up to %d, want 100", next)
	}
}

// leaseIDOf returns a lease ID with a number.
func leaseIDOf(n uint64) grid.LeaseID { return grid.LeaseID(fmt.Sprint(n)) }
