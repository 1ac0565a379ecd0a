package api

import (
	"mlfnode/grid"
)

// PathFailures groups the failed trials of a sweep.
const PathFailures = "/sweeps/{sweep}/failures"

// Failures groups the failed trials of a sweep by class, the most frequent one first.
type Failures struct {
	Groups  []FailureGroup `json:"groups"`
	Counted int64          `json:"counted"` // number of trials examined
	More    bool           `json:"more"`    // not all failed trials were examined
}

// FailureGroup is the group of failed trials of one class.
type FailureGroup struct {
	Class  grid.Class `json:"class"`
	Count  int64      `json:"count"`
	Cause  string     `json:"cause"`  // short description of what happened
	Owner  string     `json:"owner"`  // where the cause lies: trial, node, device, infrastructure or user
	Hint   string     `json:"hint"`   // what to do about it; may be empty
	Trial  string     `json:"trial"`  // an example of such a trial
	Reason string     `json:"reason"` // reason of the example
}
