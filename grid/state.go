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
	ClassLost    Class = "lost"         // its node's agent died, or the trial may run on another node now
	ClassCrash   Class = "crash"        // its whole node died under it
	ClassCancel  Class = "cancelled"    // the user cancelled it
	ClassStopped Class = "stopped"      // it did worse than other trials; no failure
	ClassPreempt Class = "preempted"    // it saved its state and runs again from there: by its own wish, or after its timeout
	ClassHalt    Class = "halted"       // the user stopped it to go on later, or its node stopped in good order; never counted

	// Told from what the program printed and from what the node saw; see package failure.
	ClassCUDAMemory Class = "cuda_oom"        // a GPU ran out of memory
	ClassCUDAShared Class = "cuda_oom_shared" // a GPU that others used, too, ran out of memory
	ClassCUDAError  Class = "cuda_error"      // a kernel crashed on the GPU
	ClassGPUModel   Class = "gpu_model"       // the program has no code for this model of GPU
	ClassNCCL       Class = "nccl"            // a collective operation of several processes failed or timed out
	ClassShm        Class = "shm"             // /dev/shm is full
	ClassCheckpoint Class = "checkpoint"      // the saved state that it was to resume from can't be read
	ClassPort       Class = "port"            // a network port is taken
	ClassNetwork    Class = "network"         // a download or another host failed
	ClassStorage    Class = "storage"         // a file system failed: NFS, FUSE, a bad disk
	ClassDisk       Class = "disk"            // a disk or a quota is full
	ClassLimits     Class = "limits"          // threads, processes or open files of the node's user are used up
	ClassDriver     Class = "driver"          // the GPU driver is too old, does not match, or is not ready
	ClassGPULost    Class = "gpu_lost"        // the attempt was given a GPU, and its program sees none
	ClassGPUBusy    Class = "gpu_busy"        // the GPU takes no further programs
	ClassGPUFault   Class = "gpu_hw"          // a GPU is broken: ECC, NVLink, off the bus
	ClassMount      Class = "mount"           // its node does not have, or does not allow, a folder that its container mounts
	ClassRegistry   Class = "registry"        // an image could not be fetched now
	ClassImage      Class = "image"           // an image can't be had on this node
	ClassEngine     Class = "engine"          // the container engine failed, or lacks a feature
)
