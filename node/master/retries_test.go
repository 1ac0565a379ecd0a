package master

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/node/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// failures lists every class of an attempt that did not succeed and may be run again.
var failures = []grid.Class{
	grid.ClassExit, grid.ClassSignal, grid.ClassMemory, grid.ClassTimeout, grid.ClassIdle, grid.ClassStart, grid.ClassSetup, grid.ClassLost,
}

// attempts runs the only trial of a sweep through fold and feed, as often as the feed leases it. It gives the class of each
// attempt that ran, and the state at the end. From the last class on the program succeeds.
func attempts(t *testing.T, policy grid.Retries, classes ...grid.Class) ([]grid.Class, grid.State) {
	t.Helper()
	f := newFeed(points(t, "t-1", 1))
	trial := grid.Trial{}
	now := time.UnixMicro(1_700_000_000_000_000)
	var ran []grid.Class
	for seq := uint64(1); ; seq++ {
		now = now.Add(2 * grid.MaxBackoff) // whatever waits is due
		l, ok := f.next(f.base(), now, 1)
		if !ok {
			return ran, trial.State
		}
		if l.attempt != len(ran)+1 {
			t.Fatalf("attempt number: got %d, want %d", l.attempt, len(ran)+1)
		}
		f.leased(numbered(seq), l)
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
		f.drop(numbered(seq), now)
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

		{"classes are counted apart", grid.Retries{exit: 1, signal: 1, oom: 1}, []grid.Class{exit, signal, oom, exit, signal}, 4, grid.Failed},
		{"lost nodes leave the program its retries", grid.Retries{exit: 1, lost: 3}, []grid.Class{lost, lost, exit, lost, exit}, 5, grid.Failed},
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

// TestRetryPolicyIsCounted compares any history of failures with a count by hand.
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
		{grid.ClassSetup, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, grid.MaxBackoff}},
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

// TestRetryWaitsForItsBackoff looks at the feed right before and at the time from which the trial may run again, and at what
// runs meanwhile.
func TestRetryWaitsForItsBackoff(t *testing.T) {
	for _, c := range []struct {
		class grid.Class
		wait  time.Duration
	}{{grid.ClassExit, 100 * time.Millisecond}, {grid.ClassSetup, 2 * time.Second}, {grid.ClassLost, 0}, {grid.ClassHalt, 0}} {
		t.Run(string(c.class), func(t *testing.T) {
			f := newFeed(points(t, "t-1", 3))
			now := time.UnixMicro(1_700_000_000_000_000)
			first, _ := f.next(f.base(), now, 4)
			f.leased("1", first)
			f.apply(&history.Transition{Index: 0, Change: grid.Retry, Attempts: 1, Class: c.class}, now)
			f.drop("1", now)
			if c.wait > 0 {
				other, ok := f.next(f.base(), now.Add(c.wait-time.Microsecond), 4)
				if want := (lease{lo: 1, hi: 2, attempt: 1}); !ok || !sameLease(other, want) {
					t.Errorf("before the backoff ends: got %+v, %t, want another trial: %+v", other, ok, want)
				}
			}
			again, ok := f.next(f.base(), now.Add(c.wait), 4)
			if want := (lease{lo: 0, hi: 1, attempt: 2}); !ok || !sameLease(again, want) {
				t.Errorf("when the backoff ends: got %+v, %t, want %+v", again, ok, want)
			}
		})
	}
}

func sameLease(a, b lease) bool { return a.lo == b.lo && a.hi == b.hi && a.attempt == b.attempt }

// TestRetriesAreOrdered compares the heaps with a map: what is due comes earliest first, apart by need, and of one trial once.
func TestRetriesAreOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r retries
		model := map[int64]waiter{}
		start := time.UnixMicro(1_700_000_000_000_000)
		needs := []grid.Resources{{CPUs: grid.One}, {CPUs: grid.One, Memory: 1 << 30}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.Int64Range(0, 9).Draw(t, "index")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0, 1:
				attempt := rapid.IntRange(2, 5).Draw(t, "attempt")
				due := start.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "due")) * time.Second)
				need := needs[rapid.IntRange(0, 1).Draw(t, "need")]
				r.add(i, attempt, need, due)
				model[i] = waiter{index: i, attempt: max(attempt, model[i].attempt), need: need, due: due}
			case 2:
				r.remove(i)
				delete(model, i)
			}
			now := start.Add(time.Duration(rapid.IntRange(-1, 5).Draw(t, "now")) * time.Second)
			for _, need := range needs {
				got, ok := r.due(need, now)
				want, due := earliest(model, need, now)
				got.pos = 0
				if ok != due || (ok && got != want) {
					t.Fatalf("due: got %+v, %t, want %+v, %t", got, ok, want, due)
				}
			}
			if diff := cmp.Diff(len(model), r.len()); diff != "" || r.has(i) != (model[i].attempt > 0) {
				t.Fatalf("size or membership of %d differs (-want +got):\n%s", i, diff)
			}
		}
	})
}

func earliest(all map[int64]waiter, need grid.Resources, now time.Time) (first waiter, ok bool) {
	for _, w := range all {
		if w.need != need || w.due.After(now) {
			continue
		}
		if !ok || w.due.Before(first.due) || (w.due.Equal(first.due) && w.index < first.index) {
			first, ok = w, true
		}
	}
	return first, ok
}
