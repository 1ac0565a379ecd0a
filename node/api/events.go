package api

import (
	"time"

	"mlfnode/grid"
)

// PathEvents is a stream of server-sent events. An event is a state, not a change: the newest event
// replaces the earlier ones of the same thing, so a client that misses some has lost nothing. The
// id of an event is that of the last event of the store that it includes, which stays the same when
// the master restarts: a client that sends it as Last-Event-ID gets what may have changed since.
//
// Topics are overview (the cluster, and a state of each active sweep), nodes, sweep:ID and
// trial:ID/INDEX. The name of an event is that of a field of Events, and its data is the value of
// that field.
const PathEvents = "/events"

// Events are the events of the stream: each event has one field.
type Events struct {
	Overview *Overview     `json:"overview,omitempty"`
	Sweep    *SweepState   `json:"sweep,omitempty"`
	Node     *Member       `json:"node,omitempty"`
	Members  []grid.NodeID `json:"members,omitempty"` // names of all nodes; states of other nodes are obsolete
	Trial    *Trial        `json:"trial,omitempty"`   // without wall_seconds while it runs; its state is removed once its sweep has been removed
	Bye      *Bye          `json:"bye,omitempty"`     // sent before the stream ends
}

// Overview summarizes the activity of the cluster.
type Overview struct {
	Active    int    `json:"active"`    // number of running sweeps
	Sweeps    int    `json:"sweeps"`    // number of sweeps kept
	Pending   int64  `json:"pending"`   // trials of active sweeps that are waiting
	Running   int64  `json:"running"`   // trials of all sweeps kept
	Succeeded int64  `json:"succeeded"` // trials of all sweeps kept
	Failed    int64  `json:"failed"`    // trials of all sweeps kept
	Problem   string `json:"problem,omitempty"`
}

// PathRate is the path of a Rate, below a prefix.
const PathRate = "/rate"

// Rate is the number of trials that ended in each step of the last hour, the newest last, of the
// sweeps that ran something in that hour.
type Rate struct {
	Step      float64   `json:"step_seconds"`
	Until     time.Time `json:"until"` // end of the newest step
	Succeeded []int64   `json:"succeeded"`
	Failed    []int64   `json:"failed"`
	Cancelled []int64   `json:"cancelled"`
	Sentence  string    `json:"sentence"`
}

// SweepState is the progress of a sweep. A removed sweep has the state removed and no other field.
type SweepState struct {
	SweepCounts

	Rate float64  `json:"rate"`        // trials that ended per second, averaged over several seconds
	ETA  *float64 `json:"eta_seconds"` // time until the last trial ends, in whole seconds; null while unknown
}

// Bye states why a stream of events ends.
type Bye struct {
	Reason string `json:"reason"`
}
