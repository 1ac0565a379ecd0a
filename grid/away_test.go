package grid

import (
	"testing"

	"pgregory.net/rapid"
)

func away(run string, attempt int, at int64) *Event {
	e := fenced(run, attempt, at, false)
	e.Away = true
	return e
}

func reconnected(run string, attempt, floor int, at int64) *Event {
	return &Event{Kind: Reconnected, Index: 7, Attempt: attempt, Run: run, Time: at, Floor: floor,
		Node:   NodeID(run[:1]),
		Result: &Result{Started: 10, Reason: "node " + run[:1] + " is back"}}
}

// step is an event and its expected effect on the trial.
type step struct {
	event *Event
	want  Change
	state State
	run   string // the run that determines the state
	count int    // crashes counted against the trial
}

func follow(t *testing.T, steps []step) Trial {
	t.Helper()
	trial := Trial{Index: 7}
	for i, s := range steps {
		if got := trial.Apply(nil, "n", s.event); got != s.want || trial.State != s.state || trial.Run != s.run ||
			trial.Failures[ClassCrash] != s.count {
			t.Fatalf("step %d, %s of %s: got change %d, %s by %s with %d crashes; want %d, %s by %s with %d",
				i, s.event.Kind, s.event.Run, got, trial.State, trial.Run, trial.Failures[ClassCrash], s.want, s.state,
				s.run, s.count)
		}
	}
	return trial
}

// TestAwayAttempt follows attempts whose node was away through all possible continuations.
func TestAwayAttempt(t *testing.T) {
	gone := []step{
		{started("b.1", 1, 10), Began, Running, "b.1", 0},
		{away("b.1", 1, 20), Retry, Pending, "b.1", 1},
		{away("b.1", 1, 20), Ignored, Pending, "b.1", 1},
	}
	replaced := append(gone[:3:3], step{started("c.1", 2, 30), Began, Running, "c.1", 1})
	for name, more := range map[string][]step{
		"back before anything else ran": append(gone[:3:3],
			step{reconnected("b.1", 1, 0, 40), Reconnect, Running, "b.1", 0},
			step{reconnected("b.1", 1, 0, 40), Ignored, Running, "b.1", 0},
			step{finished("b.1", 1, 50, ClassNone), Done, Succeeded, "b.1", 0}),
		"back, and its replacement is in the queue": append(gone[:3:3],
			step{reconnected("b.1", 1, 2, 40), Reconnect, Running, "b.1", 0},
			step{started("c.1", 2, 41), Ignored, Running, "b.1", 0},
			step{finished("c.1", 2, 42, ClassLost), Superseded, Running, "b.1", 0},
			step{finished("b.1", 1, 50, ClassNone), Done, Succeeded, "b.1", 0}),
		"back, and goes on": append(replaced[:4:4],
			step{reconnected("b.1", 1, 2, 40), Reconnect, Running, "b.1", 0},
			step{started("c.1", 2, 30), Ignored, Running, "b.1", 0},
			step{finished("c.1", 2, 45, ClassExit), Superseded, Running, "b.1", 0},
			step{away("b.1", 1, 50), Retry, Pending, "b.1", 1}, // again
			step{reconnected("b.1", 1, 3, 60), Reconnect, Running, "b.1", 0},
			step{finished("b.1", 1, 70, ClassNone), Done, Succeeded, "b.1", 0}),
		"back, and the other goes on": append(replaced[:4:4],
			step{fenced("b.1", 1, 40, false), Dropped, Running, "c.1", 1},
			step{finished("b.1", 1, 45, ClassNone), Superseded, Running, "c.1", 1},
			step{finished("c.1", 2, 50, ClassNone), Done, Succeeded, "c.1", 1}),
		"its result comes first": append(replaced[:4:4],
			step{finished("b.1", 1, 40, ClassNone), Done, Succeeded, "b.1", 0},
			step{finished("c.1", 2, 50, ClassNone), Superseded, Succeeded, "b.1", 0}),
		"its result comes second": append(replaced[:4:4],
			step{finished("c.1", 2, 40, ClassNone), Done, Succeeded, "c.1", 1},
			step{reconnected("b.1", 1, 2, 45), Ignored, Succeeded, "c.1", 1},
			step{finished("b.1", 1, 50, ClassNone), Superseded, Succeeded, "c.1", 1}),
		"it ended with the node": append(replaced[:4:4],
			step{finished("b.1", 1, 40, ClassLost), Superseded, Running, "c.1", 1},
			step{reconnected("b.1", 1, 2, 45), Ignored, Running, "c.1", 1},
			step{finished("c.1", 2, 50, ClassNone), Done, Succeeded, "c.1", 1}),
		"two of them": append(replaced[:4:4],
			step{away("c.1", 2, 40), Retry, Pending, "c.1", 2},
			step{started("d.1", 3, 50), Began, Running, "d.1", 2},
			step{reconnected("b.1", 1, 3, 60), Reconnect, Running, "b.1", 1},
			step{reconnected("c.1", 2, 3, 61), Reconnect, Running, "c.1", 0},
			step{finished("b.1", 1, 62, ClassNone), Superseded, Running, "c.1", 0},
			step{finished("c.1", 2, 70, ClassNone), Done, Succeeded, "c.1", 0}),
		"nobody had heard of it": {
			{reconnected("b.1", 1, 0, 40), Reconnect, Running, "b.1", 0},
			{started("b.1", 1, 10), Ignored, Running, "b.1", 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			trial := follow(t, more)
			if trial.State.Terminal() && len(trial.Away) > 0 {
				t.Errorf("the trial has ended, and %v are still waited for", trial.Away)
			}
			if trial.Apply(nil, "n", &Event{Kind: Reopened, Time: 99}); trial.State == Pending &&
				len(trial.Failures) > 0 {
				t.Errorf("after a retry the trial has the record %v", trial.Failures)
			}
		})
	}
}

// TestAwayKeepsOneResult folds attempts of nodes that go away and come back, in any order and with
// duplicates. There is at most one result, and it never changes; a running trial can always end;
// and only failures that were counted are taken back.
func TestAwayKeepsOneResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := anyPolicy(t)
		var lists [][]Event
		for n, run := range []string{"a", "b", "c"} {
			events := attempt(t, n+1, run)
			lists = append(lists, events)
			var master []Event
			for range rapid.IntRange(0, 3).Draw(t, "outages") {
				at := rapid.Int64Range(1, 60).Draw(t, "at")
				switch rapid.IntRange(0, 4).Draw(t, "what") {
				case 0:
					master = append(master, *fenced(run, n+1, at, rapid.IntRange(0, 4).Draw(t, "final") == 0))
				case 1, 2:
					master = append(master, *away(run, n+1, at))
				default:
					master = append(master, *reconnected(run, n+1, rapid.IntRange(0, 4).Draw(t, "floor"), at))
				}
			}
			lists = append(lists, master)
		}
		var trial Trial
		done, result := 0, Trial{}
		for _, e := range interleave(t, lists...) {
			terminal := trial.State.Terminal()
			change := trial.Apply(policy, "n", &e)
			if change == Done {
				done++
				result = copyTrial(trial)
			}
			if terminal && (change == Done || change == Retry || change == Reconnect || trial.State != result.State ||
				trial.Run != result.Run) {
				t.Fatalf("%s of %s changed a result: change %d, %s by %s", e.Kind, e.Run, change, trial.State,
					trial.Run)
			}
			for class, n := range trial.Failures {
				if n < 0 {
					t.Fatalf("%s of %s: %d failures of class %s", e.Kind, e.Run, n, class)
				}
			}
			if trial.State == Running && trial.hasFinished(trial.Run) {
				t.Fatalf("%s of %s: the trial runs by an attempt that has ended", e.Kind, e.Run)
			}
		}
		if done > 1 || (done == 1) != trial.State.Terminal() {
			t.Fatalf("got %d results in state %s", done, trial.State)
		}
		if trial.State == Running {
			end := finished(trial.Run, trial.Attempt, 1000, ClassNone)
			if change := trial.Apply(policy, "n", end); change != Done {
				t.Fatalf("success of the attempt that gives the state: got change %d", change)
			}
		}
	})
}
