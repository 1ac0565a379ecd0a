package grid

import (
	"slices"

	"mlfnode/grid/space"
)

// Feature is a property of a sweep, or a request to a master, that older programs do not know. A
// master that does not list a feature must not be asked for it.
type Feature string

// The features.
const (
	FeatureLists  Feature = "lists"      // values that are several arguments
	FeatureZip    Feature = "zip"        // axes that advance together
	FeatureSample Feature = "sample"     // a random part of the grid
	FeatureRepeat Feature = "repeat"     // an axis that is not an option
	FeatureVenv   Feature = "venv"       // a virtual environment
	FeatureStop   Feature = "stop_after" // a number of failures that pauses a sweep
	FeatureEarly  Feature = "stop"       // trials that are stopped early
	FeatureSet    Feature = "set"        // changing the priority of a running sweep
	FeatureNodes  Feature = "nodes"      // limiting a sweep to certain nodes

	FeatureTimeout Feature = "set_timeout"  // changing the time limit of a running sweep
	FeatureCancel  Feature = "cancel_trial" // cancelling a single trial
)

// Features returns all features that this program knows.
func Features() []Feature {
	return []Feature{FeatureLists, FeatureZip, FeatureSample, FeatureRepeat, FeatureVenv, FeatureStop, FeatureEarly,
		FeatureSet, FeatureNodes, FeatureTimeout, FeatureCancel}
}

// FeaturesOf returns the features that a task over a space uses.
func FeaturesOf(t *Task, s space.Space) (all []Feature) {
	if slices.ContainsFunc(s.Values(), (*space.Values).HasLists) {
		all = append(all, FeatureLists)
	}
	if space.HasZip(s) {
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

// The levels of nodes. A sweep's level determines which nodes can run its trials as the task
// specifies.
const (
	LevelPlain    = 1 // all nodes
	LevelEquipped = 2 // nodes that know devices, containers and checkpoints
	LevelFeatures = 3 // nodes that know these features
	LevelNodes    = 4 // nodes that know NodeSet and all orders; older ones reject a record with an unknown order
	LevelLong     = 5 // nodes that can read long records

	// NewestLevel is the level of this program, which equals the number of levels: new ones go
	// above this line.
	NewestLevel = iota
)

// Level returns the minimum level of the nodes that can get the sweep's trials. Nodes below it
// would silently ignore what they do not know.
func (s *Sweep) Level() int {
	ofNodes := func(f Feature) bool { return f != FeatureStop } // which concerns only the master
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

// Equipped reports whether the task needs devices, a container or a checkpoint, which older nodes
// would silently ignore.
func (t *Task) Equipped() bool {
	return t.Checkpoint != nil || t.Image != "" || t.Resources.NeedsGPU()
}
