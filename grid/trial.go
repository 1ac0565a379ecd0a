package grid

import (
	"maps"
	"slices"
)

// Trial is the truth about one point of a sweep, folded from events. The zero value with its Index is a pending trial.
type Trial struct {
	Index    int64
	State    State  // "" counts as Pending
	Attempt  int    // the attempt that gives State: the running one or the one whose result counts
	Attempts int    // the highest attempt number known
	Floor    int    // attempts up to this number ended before a retry and can't give a result any more
	Run      string // the run behind Attempt
	Node     NodeID
	Result   Result        // of Attempt; the last failure while a retry is pending
	Ended    int64         // microseconds since 1970; 0 while not ended
	Failures map[Class]int // failed attempts since the last reopening, by class
	Runs     []string      // runs that have finished, so that a repeated event is known
	Told     int64         // time of the newest metrics of Run, so that repeated older ones are known
	Retried  int64         // time of the last reopening, so that a repeated one is known
	Away     []AwayRun     // runs on nodes that are not heard of, which may come back
}

// AwayRun is a run whose node is not heard of. It was counted as a failure of its class, unless it comes back.
type AwayRun struct {
	Run     string
	Attempt int
	Class   Class
}

// Change says what an event did to a trial.
type Change uint8

// The changes. Only Done, Retry and Reopen alter what is left to do.
const (
	Ignored    Change = iota // a duplicate, or a fact that is older than what is known
	Superseded               // a second result: kept as an attempt, not as the trial's result
	Began                    // the trial is running
	Progress                 // new metrics
	Done                     // the trial is terminal now
	Retry                    // the attempt failed and the policy allows another one: the trial is pending again
	Reopen                   // a user's retry: the trial is pending again
	Reconnect                // the trial is running, by an attempt that was taken for lost
	Dropped                  // an attempt that was taken for lost is, and can't give a result any more
)

// Apply folds one event into the trial and says what changed. It is deterministic: the same events in the same order give
// the same trial whatever the clock says, and a repeated event changes nothing. The first terminal event wins.
func (t *Trial) Apply(policy Retries, node NodeID, e *Event) Change {
	switch e.Kind {
	case Started:
		return t.applyStarted(node, e)
	case Metrics:
		return t.applyMetrics(e)
	case Finished:
		return t.applyFinished(policy, node, e)
	case Reopened:
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
	t.Ended, t.Told = 0, 0
	return Began
}

func (t *Trial) applyMetrics(e *Event) Change {
	if t.State != Running || t.Run != e.Run || e.Time <= t.Told {
		return Ignored
	}
	t.Result.Metrics, t.Result.Curves, t.Told = e.Metrics, e.Curves, e.Time
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
		// It ended because its node was away, as was counted already.
		t.Away = withoutRun(t.Away, away)
		t.Floor = max(t.Floor, e.Attempt)
		return Superseded
	case away >= 0:
		t.restoreAway(away)
	}
	again := t.countFailure(policy, e.Result)
	if again && t.Run != e.Run && (t.State == Running || t.isOlder(e, e.Result.Started)) {
		// Another attempt is already running, or a later one waits for its retry: the failure counts, the state stays.
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

// applyFenced ends the running attempt for everybody: the trial goes on without it, and what the attempt still reports is superseded.
// When its node is only away, the trial goes on without it too, but its result counts if it comes before another one's. Whether
// the trial runs again is part of the event, so that the fold needs no settings.
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
		t.Away = append(t.Away[:len(t.Away):len(t.Away)], AwayRun{Run: e.Run, Attempt: t.Attempt, Class: e.Result.Class})
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

// applyWithdrawn ends a trial that is not to run any more. What still runs of it is superseded.
func (t *Trial) applyWithdrawn(e *Event) Change {
	if e.Result == nil || t.State.Terminal() || e.Time <= t.Retried { // a repeated one does not end what was reopened since
		return Ignored
	}
	before := t.Result
	t.Result, t.Ended = *e.Result, e.Time
	if t.State == Running {
		t.Result.Started, t.Result.Devices = before.Started, before.Devices
		t.Result.Metrics, t.Result.Curves = before.Metrics, before.Curves
	} else {
		t.Attempt, t.Run, t.Node = 0, "", "" // the attempts that have failed are told of by themselves
	}
	t.State, t.Floor, t.Away = Cancelled, max(t.Floor, t.Attempts), nil
	return Done
}

// applyReconnected makes an attempt that was considered lost give the trial its state again. All runs in its place are fenced.
func (t *Trial) applyReconnected(e *Event) Change {
	away := t.awayIndex(e.Run)
	current := t.State == Running && t.Run == e.Run
	if e.Result == nil || t.State.Terminal() || t.hasFinished(e.Run) || (away < 0 && (current || e.Attempt <= t.Floor)) {
		return Ignored
	}
	if away >= 0 {
		t.restoreAway(away)
	}
	t.Floor = max(t.Floor, t.Attempts, e.Floor)
	t.Attempts = max(t.Attempts, e.Attempt, t.Floor)
	t.State, t.Attempt, t.Run, t.Node = Running, e.Attempt, e.Run, e.Node
	t.Result, t.Ended, t.Told = Result{Started: e.Result.Started}, 0, 0
	return Reconnect
}

// IsAway reports whether a run is on a node that is not heard of, and may come back.
func (t *Trial) IsAway(run string) bool { return t.awayIndex(run) >= 0 }

// awayIndex is where a run stands in Away; -1 for one that is not there.
func (t *Trial) awayIndex(run string) int {
	for i := range t.Away {
		if t.Away[i].Run == run {
			return i
		}
	}
	return -1
}

// restoreAway makes a run that was away no longer count as a failure.
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

// withoutRun returns a list without one of its runs. The old list stays as it is: copies of the trial have it.
func withoutRun(list []AwayRun, i int) []AwayRun {
	return slices.Delete(slices.Clone(list), i, i+1)
}

// countFailure counts a failure and reports whether the trial is to run once more. Trouble of a node that kept the program from running
// counts for nothing, however often it happens.
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

// isOlder reports whether the event's run comes before the one that gives the state. Of two runs with one number the later start
// is the newer, so no repeated event can switch back.
func (t *Trial) isOlder(e *Event, started int64) bool {
	return e.Attempt < t.Attempt || (e.Attempt == t.Attempt && t.Run != "" && started <= t.Result.Started)
}

func (t *Trial) hasFinished(run string) bool {
	for _, r := range t.Runs {
		if r == run {
			return true
		}
	}
	return false
}
