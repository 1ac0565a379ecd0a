package master

import (
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// openTrials is what is known of the trials of a sweep that have started and have not ended.
type openTrials struct {
	started       map[int64]int           // attempts of trials known to run
	awayTrials    map[int64]bool          // trials with an attempt on a node that is not heard from
	snapshotNodes map[int64]grid.NodeID   // nodes that alone have what trials saved last
	failedOn      map[int64][]failedPlace // where attempts of trials failed that later ones avoid
}

// maxFailedPlaces is how many of a trial's last attempts count for what the next one avoids.
const maxFailedPlaces = 2

// failedPlace is where an attempt failed in a class whose retries avoid that place.
type failedPlace struct {
	node  grid.NodeID
	scope grid.Scope
	at    time.Time
}

// recordFailure records where an attempt has failed. It also records whether its node alone has
// what the trial saved last, because that could not be stored or the node's agent died.
func (o *openTrials) recordFailure(t *history.Transition, s *grid.Sweep, now time.Time) {
	failure := grid.FailureOf(t.Class)
	if t.Node != "" && failure.Avoid != grid.ScopeNone {
		all := append(o.failedOn[t.Index], failedPlace{t.Node, failure.Avoid, now})
		o.failedOn[t.Index] = all[max(0, len(all)-maxFailedPlaces):]
	}
	switch {
	case s.Task.Checkpoint == nil:
	case t.Snapshot > 0 || t.Class == grid.ClassCheckpoint:
		delete(o.snapshotNodes, t.Index)
	case failure.Owner != grid.OwnerNode && failure.Avoid == grid.ScopeNone:
		o.snapshotNodes[t.Index] = t.Node
	}
}

// forget forgets a trial that has ended, except that an attempt of it may still run elsewhere.
func (o *openTrials) forget(index int64) {
	delete(o.started, index)
	delete(o.failedOn, index)
	delete(o.snapshotNodes, index)
}
