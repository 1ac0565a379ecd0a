package grid

// State is the state of a trial.
//
//	pending ──► running ──► succeeded
//	   ▲           │  ├───► failed
//	   │           │  └───► cancelled
//	   └── retry ──┘
//
// Terminal states are final, except that a user's retry reopens a failed or cancelled trial.
type State string

// The states of a trial.
const (
	Pending   State = "pending"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// States lists every trial state in the order of a trial's life.
var States = [...]State{Pending, Running, Succeeded, Failed, Cancelled}

// Terminal reports whether no event other than a retry changes the state any more.
func (s State) Terminal() bool {
	return s == Succeeded || s == Failed || s == Cancelled
}

// SweepState is the state of a sweep. A sweep is active while it is running; paused and cancelled sweeps lease nothing.
type SweepState string

// The states of a sweep.
const (
	SweepRunning   SweepState = "running"
	SweepPaused    SweepState = "paused"
	SweepCancelled SweepState = "cancelled"
	SweepFinished  SweepState = "finished"
)

// Class says why an attempt did not succeed. Retries are counted for each class apart; FailureOf says what follows from each.
type Class string

// The failure classes. ClassNone marks a success.
const (
	ClassNone    Class = ""
	ClassExit    Class = "exit"         // the program ended with a code other than 0
	ClassSignal  Class = "signal"       // a signal that mlfnode did not send ended the program
	ClassMemory  Class = "oom"          // the kernel killed it for want of memory
	ClassTimeout Class = "timeout"      // it ran longer than `timeout`
	ClassIdle    Class = "idle_timeout" // it printed nothing for `idle_timeout`
	ClassStart   Class = "start"        // the program could not be started at all
	ClassSetup   Class = "setup"        // the task's setup step failed on this node
	ClassNode    Class = "node"         // its node could not run it: it lacked processes, files, disk, memory, or what runs its programs
	ClassLost    Class = "lost"         // its node agent died under it, or its lease was lost
	ClassCrash   Class = "crash"        // its whole node died under it
	ClassCancel  Class = "cancelled"    // the user cancelled it
	ClassHalt    Class = "halted"       // the user stopped it to go on later, or its node stopped in good order; never counted
)
