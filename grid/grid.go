// Package grid is the vocabulary of mlfnode and its pure logic: sweeps, tasks, trials, events and the rules by which events
// change trials.
//
// A Sweep runs one task over a space.Space. Each point of the space is a Trial; each run of a trial is an attempt. Workers state
// what happened to attempts as immutable Events, and Trial.Apply folds events, in stream order, into the one truth about a
// trial. Nothing here does I/O, starts a goroutine or reads a clock, so every rule can be tested as algebra.
package grid

import (
	"fmt"
	"strconv"
	"strings"
)

// SweepID names a sweep: `<project>-<n>`, for example `chainer-3`.
type SweepID string

// NodeID names one machine of the cluster.
type NodeID string

// TrialID names one point of a sweep: `chainer-3/17`.
type TrialID struct {
	Sweep SweepID
	Index int64
}

// String gives the form that users type: `chainer-3/17`.
func (t TrialID) String() string {
	return string(t.Sweep) + "/" + strconv.FormatInt(t.Index, 10)
}

// ArtifactName is the object that holds what one run of the trial left.
func (t TrialID) ArtifactName(run string) string {
	return t.String() + "/" + run
}

// ParseTarget reads `chainer-3` or `chainer-3/17`. The index is -1 when only a sweep is named.
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
		return TrialID{}, fmt.Errorf("%q is not a trial: the part after the slash is the trial's index from 0, as in %s/17", s, sweep)
	}
	return TrialID{Sweep: SweepID(sweep), Index: n}, nil
}
