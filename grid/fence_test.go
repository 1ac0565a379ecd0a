package grid

import (
	"testing"

	"pgregory.net/rapid"
)

func started(run string, attempt int, at int64) *Event {
	return &Event{Kind: Started, Index: 7, Attempt: attempt, Run: run, Time: at}
}

func fenced(run string, attempt int, at int64, final bool) *Event {
	return &Event{Kind: Fenced, Index: 7, Attempt: attempt, Run: run, Time: at, Final: final,
		Result: &Result{Class: ClassCrash, ExitCode: NoExit, Reason: "node b died"}}
}

func finished(run string, attempt int, at int64, c Class) *Event {
	return &Event{Kind: Finished, Index: 7, Attempt: attempt, Run: run, Time: at,
		Result: &Result{Class: c, Started: at - 1}}
}

// TestFencedAttemptGivesNoResult lets an attempt of a dead node come back: whatever it reports is
// superseded, and the attempt that replaced it determines the result.
func TestFencedAttemptGivesNoResult(t *testing.T) {
	steps := []struct {
		event *Event
		want  Change
		state State
	}{
		{started("b.1", 1, 10), Began, Running},
		{fenced("b.1", 1, 20, false), Retry, Pending},
		{fenced("b.1", 1, 20, false), Ignored, Pending},
		{finished("b.1", 1, 25, ClassNone), Superseded, Pending},
		{started("b.1", 1, 10), Ignored, Pending},
		{started("c.1", 2, 30), Began, Running},
		{fenced("b.1", 1, 31, false), Ignored, Running},
		{finished("c.1", 2, 40, ClassNone), Done, Succeeded},
		{fenced("c.1", 2, 41, false), Ignored, Succeeded},
	}
	var trial Trial
	for i, s := range steps {
		if got := trial.Apply(nil, "n", s.event); got != s.want || trial.State != s.state {
			t.Fatalf("step %d, %s of %s: got change %d in state %s, want %d in %s", i, s.event.Kind, s.event.Run, got,
				trial.State, s.want, s.state)
		}
	}
	if trial.Run != "c.1" || trial.Failures[ClassCrash] != 1 {
		t.Errorf("got run %s and %v, want c.1 and one crash", trial.Run, trial.Failures)
	}
}

// TestFinalFenceSetsAside checks that a final fence ends a trial, and that a user's retry runs it
// again with a clean record.
func TestFinalFenceSetsAside(t *testing.T) {
	var trial Trial
	for n := 1; n <= 3; n++ {
		run := string(rune('a'+n)) + ".1"
		trial.Apply(nil, "n", started(run, n, int64(10*n)))
		trial.Apply(nil, "n", fenced(run, n, int64(10*n+5), n == 3))
	}
	if trial.State != Failed || trial.Failures[ClassCrash] != 3 || trial.Result.Class != ClassCrash {
		t.Fatalf("got state %s after %v, want failed after 3 crashes", trial.State, trial.Failures)
	}
	if c := trial.Apply(nil, "n", &Event{Kind: Reopened, Index: 7, Time: 100}); c != Reopen ||
		len(trial.Failures) != 0 {
		t.Errorf("retry: got change %d with %v, want it open with none", c, trial.Failures)
	}
}

// TestFenceKeepsOneResult folds attempts and fences in any order: there is at most one result, and
// it never changes.
func TestFenceKeepsOneResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := anyPolicy(t)
		lists := [][]Event{attempt(t, 1, "a"), attempt(t, 2, "b"), attempt(t, 3, "c")}
		for _, run := range []string{"a", "b"} {
			if rapid.Bool().Draw(t, "fence") {
				lists = append(lists, []Event{*fenced(run, 1, 500, rapid.IntRange(0, 4).Draw(t, "final") == 0)})
			}
		}
		var trial Trial
		done := 0
		for _, e := range interleave(t, lists...) {
			terminal := trial.State.Terminal()
			change := trial.Apply(policy, "n", &e)
			if change == Done {
				done++
			}
			if terminal && (change == Done || change == Retry || !trial.State.Terminal()) {
				t.Fatalf("%s of %s changed a result: change %d, state %s", e.Kind, e.Run, change, trial.State)
			}
		}
		if done > 1 || (done == 1) != trial.State.Terminal() {
			t.Fatalf("got %d results in state %s", done, trial.State)
		}
	})
}
