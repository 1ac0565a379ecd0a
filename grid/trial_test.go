package grid

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func classes() []Class {
	return []Class{ClassNone, ClassExit, ClassSignal, ClassMemory, ClassTimeout, ClassIdle, ClassStart, ClassSetup,
		ClassLost, ClassCancel, ClassHalt}
}

func anyPolicy(t *rapid.T) Retries {
	return rapid.MapOf(rapid.SampledFrom(classes()), rapid.IntRange(0, 2)).Draw(t, "policy")
}

// attempt returns the events of one run in order. Times of different runs may coincide.
func attempt(t *rapid.T, number int, run string) []Event {
	at := rapid.Int64Range(1, 50).Draw(t, "time")
	next := func(k EventKind) Event {
		at += rapid.Int64Range(1, 5).Draw(t, "pause")
		return Event{Kind: k, Index: 7, Attempt: number, Run: run, Time: at}
	}
	var events []Event
	if rapid.Bool().Draw(t, "long") {
		events = append(events, next(Started))
		for i := range rapid.IntRange(0, 3).Draw(t, "metrics") {
			m := next(Metrics)
			m.Metrics = Metric{"loss": json.RawMessage(fmt.Sprint(i))}
			events = append(events, m)
		}
	}
	f := next(Finished)
	f.Result = &Result{Class: rapid.SampledFrom(classes()).Draw(t, "class"), Started: at, Reason: run}
	return append(events, f)
}

// interleave merges lists at random, keeping the order of each, and occasionally repeats an earlier
// event.
func interleave(t *rapid.T, lists ...[]Event) []Event {
	var out []Event
	for {
		var open []int
		for k := range lists {
			if len(lists[k]) > 0 {
				open = append(open, k)
			}
		}
		if len(open) == 0 {
			return out
		}
		if len(out) > 0 && rapid.IntRange(0, 3).Draw(t, "repeat") == 0 {
			out = append(out, out[rapid.IntRange(0, len(out)-1).Draw(t, "which")])
			continue
		}
		k := rapid.SampledFrom(open).Draw(t, "from")
		out = append(out, lists[k][0])
		lists[k] = lists[k][1:]
	}
}

// expected determines by brute force whether two results end a trial: a success or a cancel does,
// and so does a failure beyond the retries of its class.
func expected(policy Retries, results ...*Result) bool {
	count := map[Class]int{}
	for _, r := range results {
		switch r.Class {
		case ClassNone, ClassCancel:
			return true
		case ClassHalt:
		default:
			if count[r.Class]++; count[r.Class] > policy[r.Class] {
				return true
			}
		}
	}
	return false
}

func copyTrial(t Trial) Trial {
	t.Failures = maps.Clone(t.Failures)
	t.Runs = append([]string(nil), t.Runs...)
	return t
}

// TestOneResult folds two attempts in every order with duplicates: exactly one result ends the
// trial, and it never changes.
func TestOneResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := anyPolicy(t)
		a := attempt(t, 1, "a")
		b := attempt(t, rapid.IntRange(1, 2).Draw(t, "number"), "b")
		var trial Trial
		done, ended := 0, Trial{}
		for _, e := range interleave(t, a, b) {
			terminal := trial.State.Terminal()
			switch change := trial.Apply(policy, "n", &e); {
			case change == Done:
				done++
				ended = copyTrial(trial)
			case terminal && change != Ignored && change != Superseded:
				t.Fatalf("%s of run %s in state %s: got change %d", e.Kind, e.Run, trial.State, change)
			}
			if done > 0 &&
				(trial.State != ended.State || trial.Run != ended.Run || !cmp.Equal(trial.Result, ended.Result)) {
				t.Fatalf("result changed from %+v to %+v", ended, trial)
			}
		}
		want := 0
		if expected(policy, a[len(a)-1].Result, b[len(b)-1].Result) {
			want = 1
		}
		if done != want || trial.State.Terminal() != (want == 1) {
			t.Fatalf("terminal results: got %d in state %s, want %d", done, trial.State, want)
		}
		if len(trial.Runs) != 2 {
			t.Fatalf("finished runs: got %v, want a and b", trial.Runs)
		}
	})
}

// TestRepeatedEventChangesNothing applies events a second time after each step.
func TestRepeatedEventChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := anyPolicy(t)
		lists := [][]Event{attempt(t, 1, "a"), attempt(t, rapid.IntRange(1, 2).Draw(t, "number"), "b"),
			attempt(t, 2, "c")}
		if rapid.Bool().Draw(t, "reopen") {
			lists = append(lists, []Event{{Kind: Reopened, Index: 7, Time: 1000}})
		}
		var trial Trial
		var sent []Event
		for _, e := range interleave(t, lists...) {
			trial.Apply(policy, "n", &e)
			sent = append(sent, e)
			before := copyTrial(trial)
			// An earlier event can arrive again at any time.
			again := rapid.SampledFrom(sent).Draw(t, "again")
			if again.Kind == Reopened && before.Retried != again.Time {
				continue // there was nothing to retry when it came first, so this is its first effect
			}
			if change := trial.Apply(policy, "n", &again); change != Ignored || !cmp.Equal(before, trial) {
				t.Fatalf("%s of run %s again: got change %d and %s", again.Kind, again.Run, change,
					cmp.Diff(before, trial))
			}
		}
	})
}

// TestRetriesByClass checks that failures of each class are counted separately.
func TestRetriesByClass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := anyPolicy(t)
		var trial Trial
		count := map[Class]int{}
		for n := 1; n < 30; n++ {
			class := rapid.SampledFrom(classes()).Draw(t, "class")
			e := Event{Kind: Finished, Attempt: n, Run: fmt.Sprint(n), Time: int64(n), Result: &Result{Class: class}}
			change := trial.Apply(policy, "n", &e)
			if class != ClassNone && class != ClassCancel && class != ClassHalt {
				count[class]++
			}
			want, state := Retry, Pending
			switch {
			case class == ClassNone:
				want, state = Done, Succeeded
			case class == ClassCancel:
				want, state = Done, Cancelled
			case count[class] > policy[class]:
				want, state = Done, Failed
			}
			if change != want || trial.State != state {
				t.Fatalf("attempt %d, class %q, counts %v, policy %v: got %d, %s, want %d, %s", n, class, count, policy,
					change, trial.State, want, state)
			}
			if change == Done {
				return
			}
		}
	})
}

// TestReopen checks that, after a user's retry of a trial, old attempts can no longer determine the
// result and the counts start over.
func TestReopen(t *testing.T) {
	finish := func(n int, c Class) *Event {
		return &Event{Kind: Finished, Attempt: n, Run: fmt.Sprint(n), Time: int64(n), Result: &Result{Class: c}}
	}
	reopen := &Event{Kind: Reopened, Time: 100}
	var trial Trial
	for i, step := range []struct {
		event *Event
		want  Change
		state State
	}{
		{reopen, Ignored, ""},
		{finish(1, ClassExit), Retry, Pending},
		{finish(3, ClassExit), Done, Failed},
		{reopen, Reopen, Pending},
		{finish(2, ClassNone), Superseded, Pending},
		{&Event{Kind: Started, Attempt: 3, Run: "x", Time: 101}, Ignored, Pending},
		{&Event{Kind: Started, Attempt: 4, Run: "4", Time: 102}, Began, Running},
		{finish(4, ClassExit), Retry, Pending},
		{finish(5, ClassExit), Done, Failed},
		{reopen, Ignored, Failed},
		{&Event{Kind: Reopened, Time: 101}, Reopen, Pending},
		{finish(6, ClassNone), Done, Succeeded},
		{&Event{Kind: Reopened, Time: 102}, Ignored, Succeeded},
		{&Event{Kind: "unheard-of"}, Ignored, Succeeded},
	} {
		if got := trial.Apply(Retries{ClassExit: 1}, "n", step.event); got != step.want || trial.State != step.state {
			t.Fatalf("step %d, %s: got %d, %q, want %d, %q", i, step.event.Kind, got, trial.State, step.want,
				step.state)
		}
	}
}

// TestWithdraw cancels a trial that waits, one that waits for its retry and one that runs: nothing
// else determines its result until it is retried.
func TestWithdraw(t *testing.T) {
	result := func(class Class) *Result { return &Result{Class: class, Reason: string(class), Started: 1} }
	started := Event{Kind: Started, Attempt: 1, Run: "a", Time: 10}
	failed := Event{Kind: Finished, Attempt: 1, Run: "a", Time: 20, Result: result(ClassExit)}
	gone := Event{Kind: Withdrawn, Time: 30, Result: result(ClassCancel)}
	late := Event{Kind: Finished, Attempt: 2, Run: "b", Time: 40, Result: result(ClassNone)}
	again := Event{Kind: Reopened, Time: 50}
	for name, c := range map[string]struct {
		before  []Event
		attempt int
	}{"waits": {}, "waits for its retry": {[]Event{started, failed}, 0}, "runs": {[]Event{started}, 1}} {
		var trial Trial
		apply := func(e Event, want Change) {
			t.Helper()
			if got := trial.Apply(Retries{ClassExit: 1}, "n", &e); got != want {
				t.Errorf("%s: %s at %d gives change %d, want %d", name, e.Kind, e.Time, got, want)
			}
		}
		for _, e := range c.before {
			trial.Apply(Retries{ClassExit: 1}, "n", &e)
		}
		apply(gone, Done)
		if trial.State != Cancelled || trial.Attempt != c.attempt || trial.Result.Class != ClassCancel ||
			trial.Ended != 30 {
			t.Errorf("%s: got %+v", name, trial)
		}
		apply(gone, Ignored)
		apply(Event{Kind: Started, Attempt: 2, Run: "b", Time: 35}, Ignored)
		apply(late, Superseded)
		apply(again, Reopen)
		apply(gone, Ignored)
		apply(Event{Kind: Started, Attempt: 3, Run: "c", Time: 60}, Began)
		apply(Event{Kind: Finished, Attempt: 3, Run: "c", Time: 70, Result: result(ClassNone)}, Done)
		apply(gone, Ignored)
		if trial.State != Succeeded {
			t.Errorf("%s: got %s after a retry, want succeeded", name, trial.State)
		}
	}
}
