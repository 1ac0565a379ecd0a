package grid

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// TestEveryClassHasARow parses the constants of type Class and checks that each has exactly one row
// in the table, with an owner.
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
		if f.Parent != "" && FailureOf(f.Parent).Parent != "" {
			t.Errorf("%s: its parent %s has a parent, which nothing looks at", f.Class, f.Parent)
		}
		if f.Cause == "" {
			t.Errorf("%s: a class needs a cause for reasons and documents", f.Class)
		}
		if _, ok := DefaultRetries()[f.Class]; ok && !f.Settable {
			t.Errorf("%s has a default in a task, which may not set it", f.Class)
		}
	}
	if f := FailureOf("of a newer version"); f.Owner != OwnerTrial || f.Wait(1) == 0 {
		t.Errorf("a class that is not known: got %+v, want the trial's, with a wait", f)
	}
}

// TestNodeTroubleIsNotCounted fails a node under a trial repeatedly: without limit before the
// program runs, and while it runs until only the trial itself can be the cause. The trial's own
// retries stay unused.
func TestNodeTroubleIsNotCounted(t *testing.T) {
	for name, c := range map[string]struct {
		policy Retries
		wall   int64 // duration of an attempt
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
				Kind: Finished, Attempt: attempt, Run: run, Time: int64(attempt),
				Result: &Result{Class: class, Usage: Usage{Wall: wall}},
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
			if w := failures[i].Wait(n); w < 0 || w > max(MaxBackoff, failures[i].Longest) {
				t.Errorf("%s after %d attempts: got %v, want 0 to %v", failures[i].Class, n, w, MaxBackoff)
			}
		}
	}
	f := FailureOf(ClassNode)
	if a, b := f.Wait(1), f.Wait(2); a <= 0 || b != 2*a {
		t.Errorf("waits for the node: got %v, %v, want each twice the last", a, b)
	}
}

// fail folds failed attempts of one trial and returns the trial.
func fail(policy Retries, ends ...Result) Trial {
	var trial Trial
	for i := range ends {
		ends[i].Usage.Wall = 1
		trial.Apply(policy, "n", &Event{Kind: Finished, Attempt: i + 1, Run: "n." + time.Duration(i).String(),
			Time: int64(i + 1), Result: &ends[i]})
	}
	return trial
}

func TestRetriesOfTheParentCoverItsFamily(t *testing.T) {
	told := func(c Class) Result { return Result{Class: c, Rule: "told"} }
	plain := func(c Class) Result { return Result{Class: c} }
	aborted := Result{Class: ClassNCCL, Rule: "told", ExitCode: 134}
	tests := map[string]struct {
		policy Retries
		ends   []Result
		want   State
	}{
		"the parent's number is the family's": {Retries{ClassExit: 2},
			[]Result{plain(ClassExit), told(ClassPort)}, Pending},
		"and their sum counts": {Retries{ClassExit: 2},
			[]Result{plain(ClassExit), told(ClassPort), told(ClassNCCL)}, Failed},
		"a parent of 0 holds for the family": {Retries{ClassExit: 0}, []Result{told(ClassNetwork)}, Failed},
		"an own number wins": {Retries{ClassExit: 0, ClassPort: 2},
			[]Result{told(ClassPort), told(ClassPort)}, Pending},
		"what has its own number is counted apart": {Retries{ClassExit: 1, ClassPort: 2},
			[]Result{told(ClassPort), told(ClassPort), plain(ClassExit)}, Pending},
		"memory told from output counts with exit": {Retries{ClassExit: 1}, []Result{told(ClassMemory)}, Pending},
		"memory told by the kernel does not":       {Retries{ClassExit: 1}, []Result{plain(ClassMemory)}, Failed},
		"a signal is not one of the family":        {Retries{ClassExit: 1}, []Result{plain(ClassSignal)}, Failed},
		"the table where the task says nothing": {DefaultRetries(),
			[]Result{told(ClassPort), told(ClassPort), told(ClassPort), told(ClassPort)}, Pending},
		"and its bound": {DefaultRetries(),
			[]Result{told(ClassNCCL), told(ClassNCCL)}, Failed},
		"exit has none":                {DefaultRetries(), []Result{plain(ClassExit)}, Failed},
		"a policy of an older version": {nil, []Result{told(ClassDisk), told(ClassGPUFault)}, Pending},
		"and its own memory is its own": {Retries{ClassCUDAMemory: 0},
			[]Result{told(ClassCUDAMemory)}, Failed},
		"GPU memory that others used, twice": {Retries{ClassExit: 0, ClassCUDAMemory: 0},
			[]Result{told(ClassCUDAShared), told(ClassCUDAShared)}, Pending},
		"but not for ever": {Retries{ClassCUDAMemory: 0},
			[]Result{told(ClassCUDAShared), told(ClassCUDAShared), told(ClassCUDAShared)}, Failed},
		"a told end by a signal counts with signal": {Retries{ClassExit: 0, ClassSignal: 2},
			[]Result{aborted, aborted}, Pending},
		"and no further": {Retries{ClassExit: 9, ClassSignal: 1},
			[]Result{aborted, aborted}, Failed},
		"with exit where signal has no number":      {Retries{ClassExit: 2}, []Result{aborted, aborted}, Pending},
		"its own number goes before signal's":       {Retries{ClassSignal: 3, ClassNCCL: 0}, []Result{aborted}, Failed},
		"a number of signal is not that of exit":    {Retries{ClassSignal: 3}, []Result{told(ClassShm)}, Failed},
		"the parent does not cover node's failures": {Retries{ClassExit: 0}, []Result{told(ClassDisk)}, Pending},
	}
	for name, c := range tests {
		if got := fail(c.policy, c.ends...).State; got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestInfrastructureRetriesHaveACommonBound fails a trial in one class after the other, as often as
// each class allows.
func TestInfrastructureRetriesHaveACommonBound(t *testing.T) {
	for name, policy := range map[string]Retries{"default": DefaultRetries(), "none": nil,
		"of something else": {ClassMemory: 3}} {
		var ends []Result
		for i := range failures {
			if f := &failures[i]; f.Limited {
				for range f.Retries {
					ends = append(ends, Result{Class: f.Class, Rule: "told"})
				}
			}
		}
		if len(ends) <= infrastructureRetries {
			t.Fatalf("the classes allow %d retries, which tells nothing", len(ends))
		}
		if got := fail(policy, ends[:infrastructureRetries]...).State; got != Pending {
			t.Errorf("%s: got %s after %d failures, want pending", name, got, infrastructureRetries)
		}
		if got := fail(policy, ends[:infrastructureRetries+1]...).State; got != Failed {
			t.Errorf("%s: got %s after one more, want failed", name, got)
		}
	}
	own := Retries{ClassNetwork: 40}
	if got := fail(own, slices.Repeat([]Result{{Class: ClassNetwork, Rule: "told"}}, 40)...).State; got != Pending {
		t.Errorf("a task that asks for 40 retries: got %s, want pending", got)
	}
}

// TestMountsBlameNoEngine checks that a missing folder of one task's mounts does not count against
// the node's containers.
func TestMountsBlameNoEngine(t *testing.T) {
	if f := FailureOf(ClassMount); f.Avoid != ScopeNode || f.Suspect != FailureOf(ClassImage).Suspect ||
		f.Retries == 0 {
		t.Errorf("got %+v, want retries elsewhere and no suspicion", f)
	}
}

// TestOldEventsFoldTheSame replays failures as reported by versions that lack the table's newer
// classes.
func TestOldEventsFoldTheSame(t *testing.T) {
	for class, want := range map[Class]int{
		ClassExit: 2, ClassSignal: 0, ClassMemory: 0, ClassTimeout: 0, ClassIdle: 0, ClassStart: 0, ClassSetup: 0,
		ClassLost: 0, ClassNode: nodeRetries, ClassCrash: 0,
	} {
		ends := slices.Repeat([]Result{{Class: class}}, want+1)
		if got := fail(Retries{ClassExit: 2}, ends[:want]...).State; want > 0 && got != Pending {
			t.Errorf("%s: got %s after %d failures, want pending", class, got, want)
		}
		if got := fail(Retries{ClassExit: 2}, ends...).State; got != Failed {
			t.Errorf("%s: got %s after %d failures, want failed", class, got, want+1)
		}
	}
	want := Retries{ClassSetup: 2, ClassLost: 16}
	if got := DefaultRetries(); !maps.Equal(got, want) {
		t.Errorf("default policy: got %v, want %v: records have it as it is", got, want)
	}
}
