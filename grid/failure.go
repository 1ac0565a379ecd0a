package grid

import "time"

// Owner says who is responsible for a failure, which decides what happens next: only failures that the trial itself or its user caused
// count against the trial.
type Owner string

// The owners of failures.
const (
	OwnerTrial          Owner = "trial"          // the program, its parameters or its limits
	OwnerNode           Owner = "node"           // what the machine lacks or suffers: processes, files, disk, the process that runs its programs
	OwnerDevice         Owner = "device"         // one GPU of a node
	OwnerInfrastructure Owner = "infrastructure" // agents, leases, the network
	OwnerUser           Owner = "user"           // asked for by a person
)

// Failure holds everything that depends on the class of a failed attempt. No other code decides by class.
type Failure struct {
	Class Class
	Owner Owner
	// Retries is how often a trial runs again after a failure of the class when its task does not say.
	Retries int
	// Elsewhere is the same in a cluster, where another node may well be able to run the trial.
	Elsewhere int
	// Backoff is the wait before the first of these retries. It doubles with each further attempt, up to MaxBackoff.
	Backoff time.Duration
	// Counted is set for the classes that `retries: N` sets; Settable for those that `retries: {class: N}` may set.
	Counted, Settable bool
	// Always is set where the trial runs again whatever its policy says, and the failure uses up nothing.
	Always bool
	// AtStart is set where the program did not get to run for a reason that may lie in the trial or in the node. When the same
	// trial runs on another node, it counts for the quarantine of this one.
	AtStart bool
	// Hint says what to do about it; "" where the reason says all.
	Hint string
}

// MaxBackoff bounds the wait before any attempt.
const MaxBackoff = time.Minute

// nodeRetries bounds how often a trial may be running when its node fails under it. The bound is far above what an innocent
// trial experiences, and it ends a trial that takes down every node that runs it.
const nodeRetries = 100

// failures is the table of failure classes.
//
// A trial that is not responsible runs again at once after ClassLost, ClassCrash and ClassHalt. After ClassNode it waits a little: its
// node needs time to recover, and another node may be free meanwhile.
var failures = [...]Failure{
	{Class: ClassExit, Owner: OwnerTrial, Backoff: 100 * time.Millisecond, Counted: true, Settable: true},
	{Class: ClassSignal, Owner: OwnerTrial, Backoff: 100 * time.Millisecond, Counted: true, Settable: true},
	{Class: ClassMemory, Owner: OwnerTrial, Backoff: time.Second, Counted: true, Settable: true, Hint: "raise resources.memory of the task"},
	{Class: ClassTimeout, Owner: OwnerTrial, Backoff: 100 * time.Millisecond, Counted: true, Settable: true, Hint: "raise timeout of the task"},
	{Class: ClassIdle, Owner: OwnerTrial, Backoff: 100 * time.Millisecond, Counted: true, Settable: true, Hint: "raise idle_timeout of the task"},
	{Class: ClassStart, Owner: OwnerTrial, Elsewhere: 2, Backoff: time.Second, Counted: true, Settable: true, AtStart: true},
	{Class: ClassSetup, Owner: OwnerTrial, Retries: 2, Backoff: 2 * time.Second, Settable: true, AtStart: true, Hint: "correct the task's setup step, and submit the sweep again"},
	{Class: ClassLost, Owner: OwnerInfrastructure, Retries: 16, Settable: true},
	{Class: ClassNode, Owner: OwnerNode, Retries: nodeRetries, Backoff: 500 * time.Millisecond, Hint: "see what the node reports: mlfnode members"},
	{Class: ClassCrash, Owner: OwnerNode},
	{Class: ClassCancel, Owner: OwnerUser},
	{Class: ClassHalt, Owner: OwnerUser, Always: true},
}

// FailureOf gives the row of a class. One that this program does not know, because a newer version reported it, is the trial's.
func FailureOf(c Class) Failure {
	for i := range failures {
		if failures[i].Class == c {
			return failures[i]
		}
	}
	return Failure{Class: c, Owner: OwnerTrial, Backoff: 100 * time.Millisecond}
}

// CountedClasses are the classes that `retries: N` sets: those that the program or its limits cause.
func CountedClasses() []Class { return classesWith(func(f *Failure) bool { return f.Counted }) }

// SettableClasses are the classes that `retries: {class: N}` may name.
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

// DefaultRetries is what a task without `retries` gets.
func DefaultRetries() Retries {
	all := Retries{}
	for i := range failures {
		if f := &failures[i]; f.Settable && f.Retries > 0 {
			all[f.Class] = f.Retries
		}
	}
	return all
}

// InCluster gives the retries with what a task that says nothing of a class gets in a cluster.
func (r Retries) InCluster() Retries {
	all := Retries{}
	for i := range failures {
		if f := &failures[i]; f.Elsewhere > 0 {
			all[f.Class] = f.Elsewhere
		}
	}
	for c, n := range r {
		all[c] = n
	}
	return all
}

// limit is how often a failure of the class is followed by another attempt: what the task says, where it may say something.
func (r Retries) limit(f *Failure) int {
	if f.Settable {
		return r[f.Class]
	}
	return f.Retries
}

// Wait is the pause before the attempt that follows the given number of attempts.
func (f Failure) Wait(attempts int) time.Duration {
	return min(f.Backoff<<min(max(attempts-1, 0), 16), MaxBackoff)
}
