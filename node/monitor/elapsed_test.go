package monitor

import (
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// TestElapsed checks the elapsed time of an attempt that is running, and of one whose end was not
// observed.
func TestElapsed(t *testing.T) {
	begun := time.Now().Add(-time.Minute).UnixMicro()
	ended := begun + 33e6
	s := &grid.Sweep{ID: "t-1"}
	for _, c := range []struct {
		name     string
		trial    grid.Trial
		attempt  history.Attempt
		min, max float64
	}{
		{"running", grid.Trial{State: grid.Running, Result: grid.Result{Started: begun}},
			history.Attempt{Outcome: history.IsRunning, Started: begun}, 60, 90},
		{"lost", grid.Trial{State: grid.Pending, Ended: ended,
			Result: grid.Result{Class: grid.ClassLost, Started: begun}},
			history.Attempt{Outcome: history.IsRetried, Started: begun, Ended: ended,
				Result: grid.Result{Class: grid.ClassLost}}, 33, 33},
		{"measured", grid.Trial{State: grid.Succeeded, Ended: ended,
			Result: grid.Result{Started: begun, Usage: grid.Usage{Wall: 5e6}}},
			history.Attempt{Outcome: history.IsResult, Started: begun, Ended: ended,
				Result: grid.Result{Usage: grid.Usage{Wall: 5e6}}}, 5, 5},
		{"not begun", grid.Trial{}, history.Attempt{}, 0, 0},
	} {
		if got := apiTrial(s, &c.trial).Usage.Wall; got < c.min || got > c.max {
			t.Errorf("trial, %s: got %v s, want %v to %v", c.name, got, c.min, c.max)
		}
		if got := apiAttempt(&c.attempt).Usage.Wall; got < c.min || got > c.max {
			t.Errorf("attempt, %s: got %v s, want %v to %v", c.name, got, c.min, c.max)
		}
	}
}

// TestTimeLeftLeavesOutPauses estimates the time left of a sweep that was paused for an hour after
// two of its trials had ended, of ten seconds each.
func TestTimeLeftLeavesOutPauses(t *testing.T) {
	begun := time.Now().Add(-time.Hour)
	for running, want := range map[int64]float64{0: 40, 1: 40, 2: 20} {
		v := &api.Sweep{SweepCounts: api.SweepCounts{Count: 6, Succeeded: 2, Running: running}, Started: &begun}
		if got := extrapolate(v, &history.Counts{Wall: 20e6}); got == nil || *got != want {
			t.Errorf("with %d running: got %v s left, want %v", running, got, want)
		}
	}
	if got := extrapolate(&api.Sweep{SweepCounts: api.SweepCounts{Count: 6}}, &history.Counts{}); got != nil {
		t.Errorf("before any trial has ended: got %v", *got)
	}
}

// TestExitCodeOfTheRunning checks that a running trial has no exit code: 0 would mean that it had
// succeeded.
func TestExitCodeOfTheRunning(t *testing.T) {
	for outcome, want := range map[history.Outcome]bool{history.IsRunning: false, history.IsResult: true} {
		if got := apiAttempt(&history.Attempt{Outcome: outcome}).ExitCode != nil; got != want {
			t.Errorf("attempt with outcome %s: has an exit code: %t, want %t", outcome, got, want)
		}
	}
	for state, want := range map[grid.State]bool{grid.Pending: false, grid.Running: false, grid.Succeeded: true} {
		if got := apiTrial(&grid.Sweep{ID: "t-1"},
			&grid.Trial{State: state, Attempt: 1, Ended: map[bool]int64{true: 1}[want]}).ExitCode != nil; got != want {
			t.Errorf("trial that is %s: has an exit code: %t, want %t", state, got, want)
		}
	}
}
