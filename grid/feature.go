package grid

import (
	"slices"

	"mlfnode/grid/space"
)

// Feature is something that a sweep may have, or that a master may be asked to do with one, and that older programs don't know: a master
// that does not name it must not be asked.
type Feature string

// The features.
const (
	FeatureLists  Feature = "lists"      // values that are several arguments
	FeatureZip    Feature = "zip"        // axes that go together
	FeatureSample Feature = "sample"     // a random part of the grid
	FeatureRepeat Feature = "repeat"     // an axis that is no option
	FeatureVenv   Feature = "venv"       // a virtual environment
	FeatureStop   Feature = "stop_after" // a number of failures that pauses a sweep
	FeatureEarly  Feature = "stop"       // trials that are stopped early
	FeatureSet    Feature = "set"        // another priority while it runs
	FeatureNodes  Feature = "nodes"      // nodes that alone may run it

	FeatureTimeout Feature = "set_timeout"  // another limit of time while it runs
	FeatureCancel  Feature = "cancel_trial" // one trial that is cancelled
)

// Features are all features that this program knows.
func Features() []Feature {
	return []Feature{FeatureLists, FeatureZip, FeatureSample, FeatureRepeat, FeatureVenv, FeatureStop, FeatureEarly, FeatureSet, FeatureNodes, FeatureTimeout, FeatureCancel}
}

// FeaturesOf returns the features that a task over a space has.
func FeaturesOf(t *Task, s space.Space) (all []Feature) {
	if s.HasLists() {
		all = append(all, FeatureLists)
	}
	if s.HasZip() {
		all = append(all, FeatureZip)
	}
	if _, _, ok := s.Sample(); ok {
		all = append(all, FeatureSample)
	}
	if t.Repeat {
		all = append(all, FeatureRepeat)
	}
	if t.Venv != "" {
		all = append(all, FeatureVenv)
	}
	if t.StopAfter > 0 {
		all = append(all, FeatureStop)
	}
	if t.Stop != nil {
		all = append(all, FeatureEarly)
	}
	if t.Resources.Nodes != "" {
		all = append(all, FeatureNodes)
	}
	return all
}

// The levels of nodes: which of them run the trials of a sweep as its task says.
const (
	LevelPlain    = 1 // all
	LevelEquipped = 2 // those that know devices, containers and checkpoints
	LevelFeatures = 3 // those that know these features
	LevelNodes    = 4 // those that know which nodes a task names, and all orders; older ones take a record with another one for invalid
	LevelLong     = 5 // those that can read long records
)

// Level is that of the nodes that may get the sweep's trials. Older ones would leave out what they don't know without a word.
func (s *Sweep) Level() int {
	ofNodes := func(f Feature) bool { return f != FeatureStop } // which is the master's
	switch {
	case s.Long:
		return LevelLong
	case s.Task.Order == OrderLongest || s.Task.Resources.Nodes != "":
		return LevelNodes
	case slices.ContainsFunc(FeaturesOf(&s.Task, s.Space), ofNodes):
		return LevelFeatures
	case s.Task.Equipped():
		return LevelEquipped
	}
	return LevelPlain
}
