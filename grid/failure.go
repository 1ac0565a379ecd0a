package grid

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Owner is the party responsible for a failure. It decides what happens next: only failures caused
// by the trial itself or its user count against the trial.
type Owner string

// The owners of failures.
const (
	OwnerTrial          Owner = "trial"          // the program, its parameters or its limits
	OwnerNode           Owner = "node"           // a shortage or fault of the machine: processes, files, disk, the shim
	OwnerDevice         Owner = "device"         // one GPU of a node
	OwnerInfrastructure Owner = "infrastructure" // agents, leases, the network
	OwnerUser           Owner = "user"           // requested by a user
)

// Scope is a part of the cluster that the next attempt avoids, or that a failure counts against.
type Scope string

// The scopes.
const (
	ScopeNone   Scope = ""
	ScopeDevice Scope = "device"
	ScopeNode   Scope = "node"
	ScopeModel  Scope = "model" // all nodes that have this model of GPU

	ScopeGPUs       Scope = "gpus"       // all GPUs of a node
	ScopeContainers Scope = "containers" // the container engine of a node
	ScopeLane       Scope = "lane"       // all trials of a node with the same resources and image
)

// ScopeOfLane returns the scope of the trials of one lane.
func ScopeOfLane(l Lane) Scope { return ScopeLane + ":" + Scope(l) }

// IsLane reports whether the scope was made by ScopeOfLane.
func (s Scope) IsLane() bool { return strings.HasPrefix(string(s), string(ScopeLane)+":") }

// Failure holds everything that depends on the class of a failed attempt. No other code makes
// decisions by class.
type Failure struct {
	Class Class
	// Parent is the class that a failure counts with if its class was derived from output, and the
	// task configures the parent but not the class itself. So `retries: {exit: 3}` covers every
	// failure that would be `exit` without the analysis of output. If the task configures
	// ClassSignal, that is the parent for programs ended by a signal.
	Parent Class
	Owner  Owner
	// Retries is the default number of retries after a failure of the class.
	Retries int
	// Elsewhere is the default in a cluster, where another node may be able to run the trial.
	Elsewhere int
	// Backoff is the delay before the first of these retries. It doubles with each further attempt,
	// up to Longest, or to MaxBackoff if Longest is 0.
	Backoff, Longest time.Duration
	// Counted is set for classes that `retries: N` configures, Settable for classes that `retries:
	// {class: N}` can name.
	Counted, Settable bool
	// Limited is set for classes that share infrastructureRetries.
	Limited bool
	// Always is set if the trial runs again whatever its policy says, without using up a retry.
	// Unstarted is the same for attempts whose program did not run.
	Always, Unstarted bool
	// AtStart is set if the program did not run for a reason that may lie in the trial or in the
	// node. If the same trial then runs on another node, the failure counts towards the quarantine
	// of this one.
	AtStart bool
	// Avoid is the scope that the next attempt avoids if it can run elsewhere.
	Avoid Scope
	// Suspect is the scope that the failure counts against, unless the trial fails the same way
	// elsewhere.
	Suspect Scope
	// Cause describes in a few words what happened.
	Cause string
	// Hint describes a remedy; it is "" if the reason suffices.
	Hint string
}

// MaxBackoff bounds the delay before an attempt for classes without a bound of their own.
const MaxBackoff = time.Minute

// nodeRetries bounds how often a trial may be running when its node fails. The bound is far above
// what an innocent trial experiences, and it ends a trial that brings down every node that runs it.
const nodeRetries = 100

// infrastructureRetries bounds the total retries of one trial over all Limited classes, so that a
// trial that fails differently on every node ends.
const infrastructureRetries = 16

// checkpointRetries is how many saved states of a trial may be unreadable: the one on its node and
// two snapshots.
const checkpointRetries = 3

// shortBackoff is the delay after failures that waiting does not fix.
const shortBackoff = 100 * time.Millisecond

// failures is the table of failure classes.
//
// A trial that is not at fault runs again immediately after ClassLost, ClassCrash and ClassHalt.
// After ClassNode it waits briefly: its node needs time to recover, and another node may become
// free.
var failures = [...]Failure{
	{Class: ClassExit, Owner: OwnerTrial, Backoff: shortBackoff, Counted: true, Settable: true,
		Cause: "the program ended with a code other than 0"},
	{Class: ClassSignal, Owner: OwnerTrial, Backoff: shortBackoff, Counted: true, Settable: true,
		Cause: "a signal ended the program"},
	{Class: ClassMemory, Parent: ClassExit, Owner: OwnerTrial, Backoff: time.Second, Counted: true, Settable: true,
		Cause: "the program ran out of memory", Hint: "raise resources.memory of the task"},
	{Class: ClassTimeout, Owner: OwnerTrial, Backoff: shortBackoff, Counted: true, Settable: true,
		Cause: "it ran longer than `timeout`", Hint: "raise timeout of the task"},
	{Class: ClassIdle, Owner: OwnerTrial, Backoff: shortBackoff, Counted: true, Settable: true,
		Cause: "it printed nothing for `idle_timeout`", Hint: "raise idle_timeout of the task"},
	{Class: ClassStart, Owner: OwnerTrial, Elsewhere: 2, Backoff: time.Second, Counted: true, Settable: true,
		AtStart: true,
		Cause:   "the program could not be started"},
	{Class: ClassSetup, Owner: OwnerTrial, Retries: 2, Backoff: 2 * time.Second, Settable: true, AtStart: true,
		Cause: "the task's setup step failed",
		Hint: "if a node or the network was at fault: mlfnode retry --failed; if the project was, correct it and " +
			"submit the sweep again"},
	{Class: ClassLost, Owner: OwnerInfrastructure, Retries: 16, Settable: true,
		Cause: "its node's agent died, or the trial may run on another node now"},
	{Class: ClassNode, Owner: OwnerNode, Retries: nodeRetries, Backoff: 500 * time.Millisecond, Unstarted: true,
		Cause: "its node could not run it", Hint: "see what the node reports: mlfnode members"},
	{Class: ClassCrash, Owner: OwnerNode, Unstarted: true, Cause: "its node died while it ran"},
	{Class: ClassCancel, Owner: OwnerUser, Cause: "a user cancelled it"},
	{Class: ClassStopped, Owner: OwnerUser, Cause: "it did worse than other trials (`stop`); not a failure"},
	{Class: ClassPreempt, Owner: OwnerInfrastructure, Cause: "it saved its state, to continue later",
		Hint: "raise checkpoint.repeats of the task"},
	{Class: ClassHalt, Owner: OwnerUser, Always: true, Cause: "it was stopped to run again later"},

	{Class: ClassCUDAMemory, Parent: ClassExit, Owner: OwnerTrial, Backoff: shortBackoff, Settable: true,
		Cause: "a GPU ran out of memory", Hint: "reduce the batch or the model, or run on a GPU with more memory"},
	{Class: ClassCUDAShared, Owner: OwnerInfrastructure, Retries: sharedTries, Limited: true,
		Cause: "a GPU that others used as well ran out of memory",
		Hint:  "say how much GPU memory a trial needs (gpu_memory), or have it measured (gpu_memory: auto)"},
	{Class: ClassCUDAError, Parent: ClassExit, Owner: OwnerTrial, Retries: 1, Backoff: time.Second, Settable: true,
		Avoid: ScopeDevice, Suspect: ScopeDevice,
		Cause: "a program crashed on the GPU",
		Hint:  "CUDA_LAUNCH_BLOCKING=1 shows the call that failed; if the trial runs elsewhere, suspect the device"},
	{Class: ClassGPUModel, Parent: ClassExit, Owner: OwnerTrial, Retries: 4, Backoff: shortBackoff, Settable: true,
		Avoid: ScopeModel,
		Cause: "the program has no code for this model of GPU",
		Hint:  "install a build of the framework that supports this model of GPU"},
	{Class: ClassNCCL, Parent: ClassExit, Owner: OwnerTrial, Retries: 1, Backoff: 5 * time.Second, Settable: true,
		Cause: "communication between the program's processes failed",
		Hint:  "look for the first error of any rank in the log; after a timeout one rank was slow or dead"},
	{Class: ClassShm, Parent: ClassExit, Owner: OwnerTrial, Backoff: shortBackoff, Settable: true,
		Cause: "/dev/shm is full", Hint: "use fewer loader workers, or give the task more shared memory"},
	{Class: ClassCheckpoint, Parent: ClassExit, Owner: OwnerTrial, Retries: checkpointRetries, Backoff: shortBackoff,
		Settable: true,
		Cause:    "the saved state could not be read",
		Hint:     "have the program write checkpoints to a temporary name and rename them"},
	{Class: ClassPort, Parent: ClassExit, Owner: OwnerInfrastructure, Retries: 4, Backoff: shortBackoff,
		Settable: true, Limited: true,
		Cause: "a network port is taken", Hint: "have the program take any free port (port 0) instead of a fixed one"},
	{Class: ClassNetwork, Parent: ClassExit, Owner: OwnerInfrastructure, Retries: 4, Backoff: 10 * time.Second,
		Settable: true, Limited: true,
		Cause: "a download or a connection failed",
		Hint:  "put data on the nodes in the task's setup step, so that trials need no network"},
	{Class: ClassStorage, Owner: OwnerInfrastructure, Retries: 4, Backoff: 10 * time.Second, Settable: true,
		Limited: true, Avoid: ScopeNode, Suspect: ScopeNode,
		Cause: "a file system failed",
		Hint:  "look at the mount that the path in the reason is on, and at the kernel's log of the node"},
	{Class: ClassDisk, Owner: OwnerNode, Retries: 4, Backoff: 30 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeNode, Suspect: ScopeNode,
		Cause: "a disk or a quota is full", Hint: "free space on the node, or raise the user's quota"},
	{Class: ClassLimits, Owner: OwnerNode, Retries: 2, Backoff: 5 * time.Second, Settable: true, Limited: true,
		Suspect: ScopeNode,
		Cause:   "threads, processes or open files are used up",
		Hint: "raise the limits of the node's user (ulimit -u, ulimit -n), or set OMP_NUM_THREADS and " +
			"OPENBLAS_NUM_THREADS in the task's env"},
	{Class: ClassDriver, Owner: OwnerNode, Retries: 4, Backoff: 10 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeNode, Suspect: ScopeLane,
		Cause: "the GPU driver does not work with this program",
		Hint:  "update the node's driver; after an update reboot the node"},
	{Class: ClassGPULost, Owner: OwnerNode, Retries: 2, Backoff: 5 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeNode, Suspect: ScopeGPUs,
		Cause: "the program does not see the GPU that it was given",
		Hint:  "see nvidia-smi on the node; the program may set CUDA_VISIBLE_DEVICES itself"},
	{Class: ClassGPUBusy, Owner: OwnerDevice, Retries: 4, Backoff: 5 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeDevice, Suspect: ScopeDevice,
		Cause: "the GPU does not accept further programs",
		Hint:  "another program may hold the GPU, or its compute mode is exclusive: see nvidia-smi on the node"},
	{Class: ClassGPUFault, Owner: OwnerDevice, Retries: 4, Backoff: shortBackoff, Settable: true, Limited: true,
		Avoid: ScopeDevice, Suspect: ScopeDevice,
		Cause: "a GPU is broken",
		Hint:  "look for Xid in the kernel's log of the node (dmesg); the device may need a reset, the node a reboot"},
	{Class: ClassRegistry, Owner: OwnerInfrastructure, Retries: 8, Backoff: 10 * time.Second, Longest: 5 * time.Minute,
		Settable: true, Limited: true,
		Cause: "the image could not be fetched",
		Hint:  "the registry may be unreachable, or may limit how often images are fetched"},
	{Class: ClassImage, Owner: OwnerNode, Retries: 1, Backoff: shortBackoff, Settable: true, Limited: true,
		Avoid: ScopeNode,
		Cause: "the image is not available on this node",
		Hint:  "check the image's name, its architecture, and the node's login to the registry"},
	{Class: ClassMount, Owner: OwnerNode, Retries: 8, Backoff: 5 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeNode,
		Cause: "the node does not have, or does not allow, a folder that the container mounts",
		Hint:  "name folders that the nodes have, and allow them in engine.mounts of node.yaml"},
	{Class: ClassEngine, Owner: OwnerNode, Retries: 8, Backoff: 5 * time.Second, Settable: true, Limited: true,
		Avoid: ScopeNode, Suspect: ScopeContainers,
		Cause: "the container engine failed", Hint: "mlfnode doctor on the node says whether containers work there"},
}

// FailureOf returns the row of a class. A class that this program does not know, because a newer
// version reported it, is attributed to the trial.
func FailureOf(c Class) Failure {
	for i := range failures {
		if failures[i].Class == c {
			return failures[i]
		}
	}
	return Failure{Class: c, Owner: OwnerTrial, Backoff: shortBackoff}
}

// Failures returns a copy of the table.
func Failures() []Failure { return slices.Clone(failures[:]) }

// EndsTrial reports whether the class ends the trial without a failure: it succeeded or was ended
// on purpose.
func (c Class) EndsTrial() bool { return c == ClassNone || c == ClassCancel || c == ClassStopped }

// ProgramRan reports whether an attempt that ended with this class got far enough to show that its
// node can run it.
func (f *Failure) ProgramRan() bool {
	return f.Class == ClassNone || f.Owner == OwnerTrial && !f.AtStart
}

// CountedClasses returns the classes that `retries: N` configures: those caused by the program or
// its limits.
func CountedClasses() []Class { return classesWith(func(f *Failure) bool { return f.Counted }) }

// SettableClasses returns the classes that `retries: {class: N}` can name.
func SettableClasses() []Class { return classesWith(func(f *Failure) bool { return f.Settable }) }

func classesWith(keep func(*Failure) bool) []Class {
	var all []Class
	for i := range failures {
		if keep(&failures[i]) {
			all = append(all, failures[i].Class)
		}
	}
	return all
}

// DefaultRetries returns the policy of a task without `retries`. It omits classes that have a
// parent or are Limited: only a task's own policy names those.
func DefaultRetries() Retries {
	all := Retries{}
	for i := range failures {
		if f := &failures[i]; f.Settable && f.Retries > 0 && f.Parent == "" && !f.Limited {
			all[f.Class] = f.Retries
		}
	}
	return all
}

// Policy returns the retry policy for the task's trials, including the repeats of its checkpoint.
func (t *Task) Policy() Retries {
	if t.Checkpoint == nil {
		return t.Retries
	}
	all := Retries{ClassPreempt: t.Checkpoint.Repeats}
	maps.Copy(all, t.Retries)
	return all
}

// InCluster returns the policy with the cluster's defaults for classes that the task does not set.
func (r Retries) InCluster() Retries {
	all := Retries{}
	for i := range failures {
		if f := &failures[i]; f.Elsewhere > 0 {
			all[f.Class] = f.Elsewhere
		}
	}
	maps.Copy(all, r)
	return all
}

// allow reports whether a trial with these failures, the last of class f, runs again. The task's
// setting for the class takes precedence over its setting for the parent, which takes precedence
// over the table.
func (r Retries) allow(f *Failure, last *Result, failed map[Class]int) bool {
	count := failed[f.Class]
	if limit, ok := r[f.Class]; ok && (f.Settable || f.Class == ClassPreempt) { // Task.Policy sets ClassPreempt
		return count <= limit
	}
	if f.Parent != "" && last.Rule != "" {
		parent := f.Parent
		if _, ok := r[ClassSignal]; ok && last.ExitCode > 128 && last.ExitCode <= 128+64 { // a signal ended it
			parent = ClassSignal
		}
		if limit, ok := r[parent]; ok {
			total := failed[parent]
			for i := range failures { // those that count with the parent
				if _, own := r[failures[i].Class]; failures[i].Parent != "" && !own {
					total += failed[failures[i].Class]
				}
			}
			return total <= limit
		}
	}
	switch {
	case f.Limited:
		total := 0
		for i := range failures {
			if failures[i].Limited {
				total += failed[failures[i].Class]
			}
		}
		return count <= f.Retries && total <= infrastructureRetries
	case f.Settable && f.Parent == "":
		return false // a complete policy names every class that it allows
	}
	return count <= f.Retries
}

// Wait returns the delay after the given number of attempts.
func (f Failure) Wait(attempts int) time.Duration {
	longest := f.Longest
	if longest == 0 {
		longest = MaxBackoff
	}
	return min(f.Backoff<<min(max(attempts-1, 0), 16), longest)
}
