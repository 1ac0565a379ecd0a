// Package grid defines the vocabulary of mlfnode and its pure logic: sweeps, tasks, trials, events
// and the rules by which events change trials.
//
// A Sweep runs one task over a space.Space. Each point of the space is a Trial; each run of a trial
// is an attempt. Workers record what happened to attempts as immutable Events, and Trial.Apply
// folds events, in stream order, into the authoritative state of a trial. Nothing here does I/O,
// starts a goroutine or reads a clock, so every rule can be tested as a pure function.
package grid

import (
	"fmt"
	"strconv"
	"strings"
)

// SweepID identifies a sweep: `<project>-<n>`, for example `chainer-3`.
type SweepID string

// NodeID identifies one machine of the cluster.
type NodeID string

// NodeRole is what a node does in its cluster.
type NodeRole string

// The roles of a node. Its certificate has one of them; a master may run trials, too, and then
// publishes both.
const (
	Master NodeRole = "master" // serves the API and NATS
	Worker NodeRole = "worker" // runs trials
)

// TrialID identifies one point of a sweep: `chainer-3/17`.
type TrialID struct {
	Sweep SweepID
	Index int64
}

// String returns the form that users type: `chainer-3/17`.
func (t TrialID) String() string {
	return string(t.Sweep) + "/" + strconv.FormatInt(t.Index, 10)
}

// ArtifactName returns the name of the object that holds the artifacts of one run of the trial.
func (t TrialID) ArtifactName(run string) string {
	return t.String() + "/" + run
}

// ParseTarget parses `chainer-3` or `chainer-3/17`. The index is -1 if s names only a sweep.
func ParseTarget(s string) (TrialID, error) {
	sweep, index, found := strings.Cut(s, "/")
	if sweep == "" {
		return TrialID{}, fmt.Errorf("%q does not name a sweep: write SWEEP or SWEEP/TRIAL, as in chainer-3/17", s)
	}
	if !found {
		return TrialID{Sweep: SweepID(sweep), Index: -1}, nil
	}
	n, err := strconv.ParseInt(index, 10, 64)
	if err != nil || n < 0 {
		return TrialID{}, fmt.Errorf("%q is not a trial: the part after the slash is the trial's index from 0, as "+
			"in %s/17", s, sweep)
	}
	return TrialID{Sweep: SweepID(sweep), Index: n}, nil
}
