package grid

import (
	"maps"
	"slices"
)

// Trial is the authoritative state of one point of a sweep, folded from events. The zero value with
// its Index set is a pending trial.
type Trial struct {
	Index       int64
	State       State  // "" counts as Pending
	Attempt     int    // the attempt that determines State: the running one or the one whose result counts
	Attempts    int    // the highest attempt number known
	Floor       int    // attempts up to this number ended before a retry and can no longer determine the result
	Run         string // the run of Attempt
	Node        NodeID
	Result      Result        // of Attempt; the last failure while a retry is pending
	Ended       int64         // microseconds since 1970; 0 until the trial ends
	Failures    map[Class]int // failed attempts since the last reopening, by class
	Runs        []string      // finished runs, to recognize repeated events
	MetricsTime int64         // time of the newest metrics of Run, to recognize older ones that are repeated
	Retried     int64         // time of the last reopening, to recognize a repeated one
	Away        []AwayRun     // runs on unreachable nodes, which may come back
}

// AwayRun is a run whose node is unreachable. It counts as a failure of its class unless it comes
// back.
type AwayRun struct {
	Run     string
	Attempt int
	Class   Class
}

// Change is the effect of an event on a trial.
type Change uint8

// The changes. Only Done, Retry and Reopen alter the remaining work.
const (
	Ignored    Change = iota // a duplicate, or a fact that is older than the known state
	Superseded               // a second result, recorded as an attempt but not as the trial's result
	Began                    // the trial is running
	Progress                 // new metrics
	Done                     // the trial has reached a terminal state
	Retry                    // the attempt failed and the policy allows another one: the trial is pending again
	Reopen                   // a user's retry: the trial is pending again
	Reconnect                // the trial is running, by an attempt that was considered lost
	Dropped                  // an attempt that was considered lost is lost, and can no longer determine the result
)

// Apply folds one event about the trial into it and reports what changed. It is deterministic: the
// same events in the same order produce the same trial whatever the clock says, and a repeated
// event changes nothing. The first terminal event wins.
func (t *Trial) Apply(policy Retries, node NodeID, e *Event) Change {
	switch e.Kind {
	case Started:
		return t.applyStarted(node, e)
	case Metrics:
		return t.applyMetrics(e)
	case Finished:
		return t.applyFinished(policy, node, e)
	case Reopened, ReopenedRange:
		return t.applyReopened(e)
	case Fenced:
		return t.applyFenced(e)
	case Reconnected:
		return t.applyReconnected(e)
	case Withdrawn:
		return t.applyWithdrawn(e)
	}
	return Ignored
}

func (t *Trial) applyStarted(node NodeID, e *Event) Change {
	t.Attempts = max(t.Attempts, e.Attempt)
	known := t.hasFinished(e.Run) || (t.Run != "" && e.Run == t.Run) || t.awayIndex(e.Run) >= 0
	if known || t.State.Terminal() || e.Attempt <= t.Floor || t.isOlder(e, e.Time) {
		return Ignored
	}
	t.State, t.Attempt, t.Run, t.Node = Running, e.Attempt, e.Run, node
	t.Result = Result{Started: e.Time, Devices: e.Devices}
	t.Ended, t.MetricsTime = 0, 0
	return Began
}

func (t *Trial) applyMetrics(e *Event) Change {
	if t.State != Running || t.Run != e.Run || e.Time <= t.MetricsTime {
		return Ignored
	}
	t.Result.Metrics, t.Result.Curves, t.MetricsTime = e.Metrics, e.Curves, e.Time
	return Progress
}

func (t *Trial) applyFinished(policy Retries, node NodeID, e *Event) Change {
	if e.Result == nil || t.hasFinished(e.Run) {
		return Ignored
	}
	t.Attempts = max(t.Attempts, e.Attempt)
	t.Runs = append(t.Runs, e.Run)
	class := e.Result.Class
	current := t.State == Running && t.Run == e.Run
	away := t.awayIndex(e.Run)
	switch {
	case t.State.Terminal(), e.Attempt <= t.Floor && !current && away < 0:
		return Superseded
	case away >= 0 && (class == ClassLost || class == ClassHalt):
		// The run ended because its node was away, which is counted already.
		t.Away = withoutRun(t.Away, away)
		t.Floor = max(t.Floor, e.Attempt)
		return Superseded
	case away >= 0:
		t.restoreAway(away)
	}
	again := t.countFailure(policy, e.Result)
	if again && t.Run != e.Run && (t.State == Running || t.isOlder(e, e.Result.Started)) {
		// Another attempt is already running, or a later one waits for its retry: the failure
		// counts, but the state does not change.
		return Superseded
	}
	t.Attempt, t.Run, t.Node, t.Result, t.Ended = e.Attempt, e.Run, node, *e.Result, e.Time
	switch {
	case again:
		t.State = Pending
		return Retry
	case class == ClassNone:
		t.State = Succeeded
	case class == ClassCancel || class == ClassStopped:
		t.State = Cancelled
	default:
		t.State = Failed
	}
	t.Away = nil
	return Done
}

// applyFenced ends the running attempt: the trial continues without it, and its later reports are
// superseded. If its node is only away, its result still counts if it arrives before another one's.
// The event states whether the trial runs again, so that the fold needs no settings.
func (t *Trial) applyFenced(e *Event) Change {
	if i := t.awayIndex(e.Run); i >= 0 && !e.Away {
		t.Floor = max(t.Floor, t.Away[i].Attempt)
		t.Away = withoutRun(t.Away, i)
		return Dropped
	}
	if e.Result == nil || t.State != Running || t.Run != e.Run {
		return Ignored
	}
	before := t.Result
	t.Result, t.Ended = *e.Result, e.Time
	t.Result.Started, t.Result.Devices = before.Started, before.Devices
	t.Result.Metrics, t.Result.Curves = before.Metrics, before.Curves
	t.count(e.Result.Class)
	if e.Away && !e.Final {
		t.Away = append(t.Away[:len(t.Away):len(t.Away)],
			AwayRun{Run: e.Run, Attempt: t.Attempt, Class: e.Result.Class})
	} else {
		t.Floor = max(t.Floor, t.Attempt)
	}
	if e.Final {
		t.State, t.Away = Failed, nil
		return Done
	}
	t.State = Pending
	return Retry
}

// applyWithdrawn ends a trial that must not run any more. Reports of attempts that are still
// running are superseded.
func (t *Trial) applyWithdrawn(e *Event) Change {
	// A repeated event must not end a trial that was reopened since.
	if e.Result == nil || t.State.Terminal() || e.Time <= t.Retried {
		return Ignored
	}
	before := t.Result
	t.Result, t.Ended = *e.Result, e.Time
	if t.State == Running {
		t.Result.Started, t.Result.Devices = before.Started, before.Devices
		t.Result.Metrics, t.Result.Curves = before.Metrics, before.Curves
	} else {
		t.Attempt, t.Run, t.Node = 0, "", "" // the failed attempts have events of their own
	}
	t.State, t.Floor, t.Away = Cancelled, max(t.Floor, t.Attempts), nil
	return Done
}

// applyReconnected lets an attempt that was considered lost determine the trial's state again. It
// fences all runs that replaced the attempt.
func (t *Trial) applyReconnected(e *Event) Change {
	away := t.awayIndex(e.Run)
	current := t.State == Running && t.Run == e.Run
	if e.Result == nil || t.State.Terminal() || t.hasFinished(e.Run) ||
		(away < 0 && (current || e.Attempt <= t.Floor)) {
		return Ignored
	}
	if away >= 0 {
		t.restoreAway(away)
	}
	t.Floor = max(t.Floor, t.Attempts, e.Floor)
	t.Attempts = max(t.Attempts, e.Attempt, t.Floor)
	t.State, t.Attempt, t.Run, t.Node = Running, e.Attempt, e.Run, e.Node
	t.Result, t.Ended, t.MetricsTime = Result{Started: e.Result.Started}, 0, 0
	return Reconnect
}

// IsAway reports whether a run is on an unreachable node and may come back.
func (t *Trial) IsAway(run string) bool { return t.awayIndex(run) >= 0 }

// awayIndex returns the index of a run in Away, or -1.
func (t *Trial) awayIndex(run string) int {
	return slices.IndexFunc(t.Away, func(a AwayRun) bool { return a.Run == run })
}

// restoreAway removes a run from Away and no longer counts it as a failure.
func (t *Trial) restoreAway(i int) {
	class := t.Away[i].Class
	failures := maps.Clone(t.Failures)
	if failures[class] > 1 {
		failures[class]--
	} else {
		delete(failures, class)
	}
	t.Failures, t.Away = failures, withoutRun(t.Away, i)
}

// withoutRun returns a copy of list without one run. It does not modify list, which copies of the
// trial share.
func withoutRun(list []AwayRun, i int) []AwayRun {
	return slices.Delete(slices.Clone(list), i, i+1)
}

// countFailure counts a failure and reports whether the trial runs again. Faults of a node that
// kept the program from running never count.
func (t *Trial) countFailure(policy Retries, r *Result) bool {
	if r.Class.EndsTrial() {
		return false
	}
	f := FailureOf(r.Class)
	if f.Always || f.Unstarted && r.Usage.Wall == 0 {
		return true
	}
	t.count(r.Class)
	return policy.allow(&f, r, t.Failures)
}

func (t *Trial) count(class Class) {
	if t.Failures == nil {
		t.Failures = make(map[Class]int, 1)
	}
	t.Failures[class]++
}

func (t *Trial) applyReopened(e *Event) Change {
	if (t.State != Failed && t.State != Cancelled) || (t.Retried != 0 && e.Time == t.Retried) {
		return Ignored
	}
	t.State, t.Floor, t.Failures, t.Retried, t.Away = Pending, t.Attempts, nil, e.Time, nil
	return Reopen
}

// isOlder reports whether the event's run precedes the one that determines the state. Of two runs
// with the same number the one that started later is newer, so no repeated event can switch back.
func (t *Trial) isOlder(e *Event, started int64) bool {
	return e.Attempt < t.Attempt || (e.Attempt == t.Attempt && t.Run != "" && started <= t.Result.Started)
}

func (t *Trial) hasFinished(run string) bool { return slices.Contains(t.Runs, run) }
