package master

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failures lists every class of an attempt that did not succeed and may be run again.
var failures = []grid.Class{
	grid.ClassExit, grid.ClassSignal, grid.ClassMemory, grid.ClassTimeout, grid.ClassIdle, grid.ClassStart,
	grid.ClassSetup, grid.ClassLost,
}

// attempts runs the only trial of a sweep through fold and feed, as often as the feed leases it. It
// returns the class of each attempt that ran, and the state at the end. From the last class on the
// program succeeds.
func attempts(t *testing.T, policy grid.Retries, classes ...grid.Class) ([]grid.Class, grid.State) {
	t.Helper()
	f := newFeed(newSweep(t, "t-1", 1))
	trial := grid.Trial{}
	now := time.UnixMicro(1_700_000_000_000_000)
	var ran []grid.Class
	for seq := uint64(1); ; seq++ {
		now = now.Add(2 * grid.MaxBackoff) // whatever waits is due
		l, ok := f.nextLease(f.baseNeed(), now, 1)
		if !ok {
			return ran, trial.State
		}
		if l.attempt != len(ran)+1 {
			t.Fatalf("attempt number: got %d, want %d", l.attempt, len(ran)+1)
		}
		f.addPublished(leaseIDOf(seq), l)
		class := grid.ClassNone
		if len(ran) < len(classes) {
			class = classes[len(ran)]
		}
		ran = append(ran, class)
		e := grid.Event{
			Kind: grid.Finished, Attempt: l.attempt, Run: fmt.Sprint(seq), Time: now.UnixMicro(),
			Result: &grid.Result{Class: class, Started: now.UnixMicro()},
		}
		change := trial.Apply(policy, "n", &e)
		f.apply(&history.Transition{Change: change, State: trial.State, Attempts: trial.Attempts, Class: class}, now)
		f.dropLease(leaseIDOf(seq))
		if len(ran) > 100 {
			t.Fatal("the trial runs for ever")
		}
	}
}

func TestRetryPolicyByClass(t *testing.T) {
	repeat := func(c grid.Class, n int) []grid.Class { return slices.Repeat([]grid.Class{c}, n) }
	const (
		exit, signal, oom, timeout = grid.ClassExit, grid.ClassSignal, grid.ClassMemory, grid.ClassTimeout
		setup, lost, halt          = grid.ClassSetup, grid.ClassLost, grid.ClassHalt
	)
	byDefault := grid.DefaultRetries()
	for _, c := range []struct {
		name    string
		policy  grid.Retries
		classes []grid.Class // of the attempts; after the last one the program succeeds
		want    int          // attempts
		state   grid.State
	}{
		{"success", byDefault, nil, 1, grid.Succeeded},
		{"exit code, by default", byDefault, repeat(exit, 9), 1, grid.Failed},
		{"signal, by default", byDefault, repeat(signal, 9), 1, grid.Failed},
		{"out of memory, by default", byDefault, repeat(oom, 9), 1, grid.Failed},
		{"timeout, by default", byDefault, repeat(timeout, 9), 1, grid.Failed},
		{"silence, by default", byDefault, repeat(grid.ClassIdle, 9), 1, grid.Failed},
		{"not started, by default", byDefault, repeat(grid.ClassStart, 9), 1, grid.Failed},
		{"setup failed, by default", byDefault, repeat(setup, 9), 3, grid.Failed},
		{"setup failed twice, by default", byDefault, repeat(setup, 2), 3, grid.Succeeded},
		{"node lost, by default", byDefault, repeat(lost, 30), 17, grid.Failed},
		{"node lost now and then, by default", byDefault, repeat(lost, 16), 17, grid.Succeeded},
		{"no policy at all", nil, repeat(lost, 9), 1, grid.Failed},

		{"exit code with retries", grid.Retries{exit: 2}, repeat(exit, 9), 3, grid.Failed},
		{"signal with retries", grid.Retries{signal: 1}, repeat(signal, 9), 2, grid.Failed},
		{"out of memory with retries", grid.Retries{oom: 1}, repeat(oom, 1), 2, grid.Succeeded},
		{"timeout with retries", grid.Retries{timeout: 3}, repeat(timeout, 9), 4, grid.Failed},
		{"retries of another class", grid.Retries{signal: 5}, repeat(exit, 9), 1, grid.Failed},

		{"classes are counted apart", grid.Retries{exit: 1, signal: 1, oom: 1},
			[]grid.Class{exit, signal, oom, exit, signal}, 4, grid.Failed},
		{"lost nodes leave the program its retries", grid.Retries{exit: 1, lost: 3},
			[]grid.Class{lost, lost, exit, lost, exit}, 5, grid.Failed},
		{"a failure ends it whatever else is left", grid.Retries{lost: 9}, []grid.Class{lost, timeout}, 2, grid.Failed},

		{"halted is never counted", nil, repeat(halt, 50), 51, grid.Succeeded},
		{"halted in between", grid.Retries{exit: 1}, []grid.Class{halt, exit, halt, halt, exit}, 5, grid.Failed},
		{"cancelled is final", grid.Retries{grid.ClassCancel: 5}, repeat(grid.ClassCancel, 9), 1, grid.Cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			ran, state := attempts(t, c.policy, c.classes...)
			if len(ran) != c.want || state != c.state {
				t.Errorf("got %d attempts %q and %s, want %d and %s", len(ran), ran, state, c.want, c.state)
			}
		})
	}
}

// TestRetryPolicyIsCounted compares any history of failures with a plain count.
func TestRetryPolicyIsCounted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		policy := grid.Retries(rapid.MapOf(rapid.SampledFrom(failures), rapid.IntRange(0, 3)).Draw(rt, "policy"))
		classes := rapid.SliceOfN(rapid.SampledFrom(append(failures, grid.ClassHalt)), 0, 20).Draw(rt, "classes")
		want, state := len(classes)+1, grid.Succeeded
		seen := map[grid.Class]int{}
		for i, c := range classes {
			if seen[c]++; c != grid.ClassHalt && seen[c] > policy[c] {
				want, state = i+1, grid.Failed
				break
			}
		}
		ran, got := attempts(t, policy, classes...)
		if len(ran) != want || got != state {
			rt.Fatalf("got %d attempts and %s, want %d and %s", len(ran), got, want, state)
		}
	})
}

func TestBackoff(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		class grid.Class
		want  []time.Duration // after the first attempt, the second …
	}{
		{grid.ClassLost, []time.Duration{0, 0, 0}},
		{grid.ClassHalt, []time.Duration{0, 0, 0}},
		{grid.ClassExit, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms}},
		{grid.ClassSignal, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{grid.ClassTimeout, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{grid.ClassIdle, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{grid.ClassMemory, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		{grid.ClassStart, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		{grid.ClassSetup, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second,
			32 * time.Second, grid.MaxBackoff}},
	} {
		for i, want := range c.want {
			if got := grid.FailureOf(c.class).Wait(i + 1); got != want {
				t.Errorf("%s after %d attempts: got %v, want %v", c.class, i+1, got, want)
			}
		}
	}
	for _, class := range failures {
		for _, n := range []int{-1, 0, 60, 64, 1000, math.MaxInt} {
			if got := grid.FailureOf(class).Wait(n); got < 0 || got > grid.MaxBackoff {
				t.Errorf("%s after %d attempts: got %v, want 0 to %v", class, n, got, grid.MaxBackoff)
			}
		}
	}
}

// TestRetryWaitsForItsBackoff checks the feed right before and at the time from which the trial may
// run again, and what runs in the meantime.
func TestRetryWaitsForItsBackoff(t *testing.T) {
	for _, c := range []struct {
		class grid.Class
		wait  time.Duration
	}{{grid.ClassExit, 100 * time.Millisecond}, {grid.ClassSetup, 2 * time.Second}, {grid.ClassLost,
		0}, {grid.ClassHalt, 0}} {
		t.Run(string(c.class), func(t *testing.T) {
			f := newFeed(newSweep(t, "t-1", 3))
			now := time.UnixMicro(1_700_000_000_000_000)
			first, _ := f.nextLease(f.baseNeed(), now, 4)
			f.addPublished("1", first)
			f.apply(&history.Transition{Index: 0, Change: grid.Retry, Attempts: 1, Class: c.class}, now)
			f.dropLease("1")
			if c.wait > 0 {
				other, ok := f.nextLease(f.baseNeed(), now.Add(c.wait-time.Microsecond), 4)
				if want := (lease{lo: 1, hi: 2, attempt: 1}); !ok || !sameLease(other, want) {
					t.Errorf("before the backoff ends: got %+v, %t, want another trial: %+v", other, ok, want)
				}
			}
			again, ok := f.nextLease(f.baseNeed(), now.Add(c.wait), 4)
			if want := (lease{lo: 0, hi: 1, attempt: 2}); !ok || !sameLease(again, want) {
				t.Errorf("when the backoff ends: got %+v, %t, want %+v", again, ok, want)
			}
		})
	}
}

func sameLease(a, b lease) bool { return a.lo == b.lo && a.hi == b.hi && a.attempt == b.attempt }

// TestRetriesAgreeWithAMap compares the queue with a map: what is due comes, by need, in ranges of
// trials that are leased alike, and of one trial once.
func TestRetriesAgreeWithAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r retryQueue
		model := map[int64]retry{}
		now := time.UnixMicro(1_700_000_000_000_000)
		needs := []grid.Resources{{CPUs: grid.One}, {CPUs: grid.One, Memory: 1 << 30}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w := retry{
				index: rapid.Int64Range(0, 9).Draw(t, "index"), attempt: rapid.IntRange(2, 3).Draw(t, "attempt"),
				mode: rapid.SampledFrom([]leaseMode{modeRange, modeRange, modeSingle, modeAnnounced}).Draw(t, "manner"),
				need: rapid.SampledFrom(needs).Draw(t, "need"),
			}
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				if wait := rapid.IntRange(0, 5).Draw(t, "wait"); wait > 0 {
					w.due = now.Add(time.Duration(wait) * time.Second)
				}
				r.add(w)
				w.attempt, w.mode = max(w.attempt, model[w.index].attempt), max(w.mode, model[w.index].mode)
				model[w.index] = w
			case 2:
				r.remove(w.index, w.index+1)
				delete(model, w.index)
			case 3:
				if hi := w.index + 4; len(model) == 0 {
					r.addRange(ranges.Range{Lo: w.index, Hi: hi}, w.attempt, w.need)
					for i := w.index; i < hi; i++ {
						model[i] = retry{index: i, attempt: w.attempt, need: w.need}
					}
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "time")) * time.Second)
			for _, need := range needs {
				checkDue(t, &r, model, need, now)
			}
			if diff := cmp.Diff(len(model), r.len()); diff != "" || r.has(w.index) != (model[w.index].attempt > 0) {
				t.Fatalf("size or membership of %d differs (-want +got):\n%s", w.index, diff)
			}
		}
	})
}

func checkDue(t *rapid.T, r *retryQueue, model map[int64]retry, need grid.Resources, now time.Time) {
	t.Helper()
	trials, attempt, m, ok := r.due(need, now)
	due := func(w retry) bool { return w.need == need && !w.due.After(now) }
	if !ok {
		for _, w := range model {
			if due(w) {
				t.Fatalf("nothing is due, want %+v", w)
			}
		}
		return
	}
	if trials.Lo >= trials.Hi || m != modeRange && trials.Hi-trials.Lo != 1 {
		t.Fatalf("got the trials %+v together, which are leased in manner %d", trials, m)
	}
	for i := trials.Lo; i < trials.Hi; i++ {
		if w, waits := model[i]; !waits || !due(w) || w.attempt != attempt || w.mode != m {
			t.Fatalf("due: got %d with attempt %d in manner %d, want %+v, %t", i, attempt, m, w, waits)
		}
	}
}

// TestReopenedTrialsAreLeasedInRanges retries a large sweep of which all, or every second trial,
// has failed: the feed keeps as little of them as of a sweep that has not started, and leases cover
// as many trials. A restart makes no difference.
func TestReopenedTrialsAreLeasedInRanges(t *testing.T) {
	const count = 100_000
	for _, how := range []string{"one by one", "as a range", "restarted"} {
		t.Run(how, func(t *testing.T) {
			f, now := newFeed(newSweep(t, "t-1", count)), time.Now()
			f.done.Add(0, count)
			f.assigned.Add(0, count)
			switch how {
			case "restarted":
				f.loadHistory(&history.Remaining{Reopened: []history.Reopened{{Range: ranges.Range{Hi: count},
					Attempts: 1}}}, now)
			case "as a range":
				f.apply(&history.Transition{End: count, Change: grid.Reopen, Attempts: 1}, now)
			default:
				for i := range int64(count) {
					f.apply(&history.Transition{Index: i, End: i + 1, Change: grid.Reopen, Attempts: 1}, now)
				}
			}
			if sets := f.retries.byNeed[f.baseNeed()].ready; len(sets) != 1 || sets[0].trials.Len() != 1 ||
				len(f.retries.delayed) != 0 {
				t.Fatalf("the trials that wait are kept in %d sets and %d apart, want one range", len(sets),
					len(f.retries.delayed))
			}
			f.pace = trialPace{average: time.Millisecond, lastSize: 500}
			leases := 0
			for next := int64(0); ; leases++ {
				l, ok := f.nextLease(f.baseNeed(), now, 4)
				if !ok {
					break
				}
				if l.lo != next || l.attempt != 2 || l.mode != modeRange {
					t.Fatalf("got [%d,%d) attempt %d, want attempt 2 from %d on", l.lo, l.hi, l.attempt, next)
				}
				next = l.hi
				f.addPublished(leaseIDOf(uint64(leases)), l)
				if leases%3 == 0 { // it is given back
					f.dropLease(leaseIDOf(uint64(leases)))
					next = l.lo
					again, _ := f.nextLease(f.baseNeed(), now, 4)
					f.addPublished(leaseIDOf(uint64(leases)), again)
					next = again.hi
				}
			}
			if leases > count/100 || f.retries.len() != 0 || f.assigned.Count() != count {
				t.Errorf("%d leases, %d trials wait, %d are taken; want at most %d leases of all", leases,
					f.retries.len(), f.assigned.Count(), count/100)
			}
		})
	}
}

// TestMillionReopenedTrialsWeighNothing retries a million failed trials, and lets some of them fail
// once more: what is kept grows with the places in which they lie, and not with the trials.
func TestMillionReopenedTrialsWeighNothing(t *testing.T) {
	const count, places = 1_000_000, 100
	f, now := newFeed(newSweep(t, "t-1", count)), time.Now()
	f.done.Add(0, count)
	f.assigned.Add(0, count)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range int64(count) {
		f.apply(&history.Transition{Index: i, End: i + 1, Change: grid.Reopen, Attempts: 1}, now)
	}
	if f.retries.len() != count || f.done.Count() != 0 {
		t.Fatalf("%d trials wait and %d are done, want all to wait", f.retries.len(), f.done.Count())
	}
	for i := int64(0); i < count; i += count / places {
		f.apply(&history.Transition{Index: i, Change: grid.Done, State: grid.Failed, Attempts: 2, Class: grid.ClassExit,
			Started: 1, Ended: 2}, now)
		f.apply(&history.Transition{Index: i, End: i + 1, Change: grid.Reopen, Attempts: 2}, now)
	}
	if grown := heap() - before; grown > count {
		t.Errorf("%d bytes more than before, which is over one for each trial", grown)
	}
	pieces := 0
	for _, set := range f.retries.byNeed[f.baseNeed()].ready {
		pieces += set.trials.Len()
	}
	if pieces > 2*places+1 || len(f.retries.delayed) > 0 {
		t.Errorf("the trials that wait are kept in %d pieces and %d apart, and lie in %d places", pieces,
			len(f.retries.delayed), 2*places)
	}
	runtime.KeepAlive(f)
}

// TestTrialsUnderWhichNodesDiedAreAnnounced checks that these trials are leased one by one, and
// that the node announces each before it starts.
func TestTrialsUnderWhichNodesDiedAreAnnounced(t *testing.T) {
	f, now := newFeed(newSweep(t, "t-1", 100)), time.Now()
	f.assigned.Add(0, 100)
	for i := range int64(10) {
		f.apply(&history.Transition{Index: i, Change: grid.Retry, Attempts: 1, Class: grid.ClassCrash,
			Failures: map[grid.Class]int{grid.ClassCrash: 1}}, now)
	}
	f.pace = trialPace{average: time.Microsecond, lastSize: 500}
	for i := range int64(10) {
		l, ok := f.nextLease(f.baseNeed(), now.Add(time.Hour), 4)
		if !ok || l.lo != i || l.hi != i+1 || l.mode != modeAnnounced {
			t.Fatalf("got %+v, %t, want trial %d alone and announced", l, ok, i)
		}
		f.addPublished(leaseIDOf(uint64(i)), l)
	}
}

// TestOlderLeaseCoversNoRetry retries trials that failed under a lease of which a node still works
// on another trial: they are leased as the attempt of their retry, whatever becomes of the older
// lease and the master in the meantime.
func TestOlderLeaseCoversNoRetry(t *testing.T) {
	const count, slow = 1000, 10
	now := time.Now()
	retried := func(t *testing.T, f *feed, want int64) {
		t.Helper()
		for n := uint64(100); want > 0; n++ {
			l, ok := f.nextLease(f.baseNeed(), now, 1)
			if !ok || l.attempt != 2 {
				t.Fatalf("got %+v, %t; want a lease of attempt 2 for each of %d trials", l, ok, want)
			}
			want -= l.hi - l.lo
			f.addPublished(leaseIDOf(n), l)
		}
		if l, ok := f.nextLease(f.baseNeed(), now, 1); ok {
			t.Errorf("got a further lease %+v", l)
		}
	}
	whole := jetstream.QueuedLease{Lease: jetstream.Lease{ID: "1", Hi: count, Attempt: 1}, Seq: 1}

	t.Run("after a restart", func(t *testing.T) {
		f := newFeed(newSweep(t, "t-1", count))
		f.restoreLease(&whole, now)
		f.loadHistory(&history.Remaining{
			Open: []grid.Trial{{Index: slow, State: grid.Running, Attempt: 1, Attempts: 1}},
			Reopened: []history.Reopened{{Range: ranges.Range{Hi: slow}, Attempts: 1},
				{Range: ranges.Range{Lo: slow + 1, Hi: count}, Attempts: 1}},
		}, now)
		f.shortenLease("1", slow+1) // as its node did before
		retried(t, f, count-1)
	})
	t.Run("after a restart, with some leased", func(t *testing.T) {
		f := newFeed(newSweep(t, "t-1", count))
		f.restoreLease(&whole, now)
		f.restoreLease(&jetstream.QueuedLease{Lease: jetstream.Lease{ID: "2", Lo: 20, Hi: 30, Attempt: 2, Quiet: true},
			Seq: 2}, now)
		f.loadHistory(&history.Remaining{
			Open: []grid.Trial{{Index: slow, State: grid.Running, Attempt: 1, Attempts: 1}},
			Reopened: []history.Reopened{{Range: ranges.Range{Hi: slow}, Attempts: 1},
				{Range: ranges.Range{Lo: slow + 1, Hi: count}, Attempts: 1}},
		}, now)
		f.dropLease("2")
		f.shortenLease("1", slow+1)
		retried(t, f, count-1)
	})
	t.Run("given back", func(t *testing.T) {
		f := newFeed(newSweep(t, "t-1", count))
		f.addPublished("1", lease{hi: count, attempt: 1, since: now})
		f.apply(&history.Transition{Index: slow, Change: grid.Began, Attempts: 1}, now)
		for i := range int64(slow) {
			f.apply(&history.Transition{Index: i, Change: grid.Done, State: grid.Failed, Attempts: 1}, now)
			f.apply(&history.Transition{Index: i, End: i + 1, Change: grid.Reopen, Attempts: 1}, now)
		}
		l, ok := f.nextLease(f.baseNeed(), now, 1)
		if !ok {
			t.Fatal("no retry is leased")
		}
		f.addPublished("2", l)
		f.dropLease("2")
		retried(t, f, slow)
	})
	t.Run("given back what runs again under the older lease", func(t *testing.T) {
		f := newFeed(newSweep(t, "t-1", 1))
		f.addPublished("1", lease{hi: 1, attempt: 1, since: now})
		f.apply(&history.Transition{Change: grid.Reconnect, Attempts: 1}, now)
		f.addLease("2", lease{hi: 1, attempt: 2, since: now})
		f.dropLease("2")
		retried(t, f, 0)
	})
}
