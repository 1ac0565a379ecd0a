package grid

import (
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestEveryClassHasARow reads the constants of Class and finds each of them in the table, once, with an owner.
func TestEveryClassHasARow(t *testing.T) {
	text, err := os.ReadFile("state.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^\tClass\w+ +Class = "(\w+)"`).FindAllStringSubmatch(string(text), -1)
	if len(named) != len(failures) || len(named) < 12 {
		t.Errorf("got %d rows for %d classes", len(failures), len(named))
	}
	owners := []Owner{OwnerTrial, OwnerNode, OwnerDevice, OwnerInfrastructure, OwnerUser}
	for _, m := range named {
		if f := FailureOf(Class(m[1])); string(f.Class) != m[1] || !slices.Contains(owners, f.Owner) {
			t.Errorf("class %s: got the row %+v", m[1], f)
		}
	}
	for i := range failures {
		f := &failures[i]
		if f.Counted && (!f.Settable || f.Owner != OwnerTrial) {
			t.Errorf("%s: `retries: N` sets it, and it is not the trial's to set: %+v", f.Class, f)
		}
		if _, ok := DefaultRetries()[f.Class]; ok && !f.Settable {
			t.Errorf("%s has a default in a task, which may not set it", f.Class)
		}
	}
	if f := FailureOf("of a newer version"); f.Owner != OwnerTrial || f.Wait(1) == 0 {
		t.Errorf("a class that is not known: got %+v, want the trial's, with a wait", f)
	}
}

// TestNodeTroubleIsNotCounted has a node fail under a trial again and again: before the program runs, as often as it likes, and
// while it runs, until only the trial itself can be the reason. What the trial may fail of its own stays untouched.
func TestNodeTroubleIsNotCounted(t *testing.T) {
	for name, c := range map[string]struct {
		policy Retries
		wall   int64 // of an attempt
		rounds int
		want   State
	}{
		"before it runs":                {DefaultRetries(), 0, 5000, Pending},
		"before it runs, no policy":     {nil, 0, 5000, Pending},
		"before it runs, no retries":    {Retries{ClassNode: 0, ClassExit: 0}, 0, 5000, Pending},
		"while it runs":                 {DefaultRetries(), int64(time.Second), nodeRetries, Pending},
		"while it runs, no policy":      {nil, int64(time.Second), nodeRetries, Pending},
		"whatever runs it is ended":     {nil, int64(time.Second), nodeRetries + 1, Failed},
		"whatever a policy wants of it": {Retries{ClassNode: 3}, int64(time.Second), nodeRetries, Pending},
	} {
		trial, attempt := Trial{}, 0
		apply := func(class Class, wall int64) {
			attempt++
			run := "n.1." + time.Duration(attempt).String()
			trial.Apply(c.policy, "n", &Event{
				Kind: Finished, Attempt: attempt, Run: run, Time: int64(attempt), Result: &Result{Class: class, Usage: Usage{Wall: wall}},
			})
		}
		for range c.rounds {
			apply(ClassNode, c.wall)
		}
		if got := trial.State; got != c.want {
			t.Errorf("%s: got %s after %d failures of nodes, want %s", name, got, c.rounds, c.want)
		}
		if c.want == Failed {
			continue
		}
		for range c.policy[ClassExit] + 1 {
			if trial.State != Pending {
				t.Errorf("%s: got %s before its own failures are used up", name, trial.State)
			}
			apply(ClassExit, 1)
		}
		if trial.State != Failed {
			t.Errorf("%s: got %s after its own failure, want failed", name, trial.State)
		}
	}
}

func TestWaitIsBounded(t *testing.T) {
	for i := range failures {
		for _, n := range []int{-1, 0, 1, 60, 1 << 40} {
			if w := failures[i].Wait(n); w < 0 || w > MaxBackoff {
				t.Errorf("%s after %d attempts: got %v, want 0 to %v", failures[i].Class, n, w, MaxBackoff)
			}
		}
	}
	f := FailureOf(ClassNode)
	if a, b := f.Wait(1), f.Wait(2); a <= 0 || b != 2*a {
		t.Errorf("waits for the node: got %v, %v, want each twice the last", a, b)
	}
}
