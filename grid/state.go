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

// Terminal reports whether only a retry can still change the state.
func (s State) Terminal() bool {
	return s == Succeeded || s == Failed || s == Cancelled
}

// SweepState is the state of a sweep. Only running sweeps grant leases.
type SweepState string

// The states of a sweep.
const (
	SweepRunning   SweepState = "running"
	SweepPaused    SweepState = "paused"
	SweepCancelled SweepState = "cancelled"
	SweepFinished  SweepState = "finished"
)

// Class is the reason why an attempt did not succeed. Retries are counted for each class
// separately; FailureOf returns the consequences of each class.
type Class string

// The failure classes. ClassNone stands for success.
const (
	ClassNone    Class = ""
	ClassExit    Class = "exit"         // the program exited with a code other than 0
	ClassSignal  Class = "signal"       // a signal that mlfnode did not send ended the program
	ClassMemory  Class = "oom"          // the kernel killed it because memory ran out
	ClassTimeout Class = "timeout"      // it ran longer than `timeout`
	ClassIdle    Class = "idle_timeout" // it printed nothing for `idle_timeout`
	ClassStart   Class = "start"        // the program could not be started at all
	ClassSetup   Class = "setup"        // the task's setup step failed on this node
	// Its node could not run it for lack of processes, files, disk, memory or the shim.
	ClassNode    Class = "node"
	ClassLost    Class = "lost"      // its node's agent died, or the trial may be running on another node now
	ClassCrash   Class = "crash"     // its whole node died while it ran
	ClassCancel  Class = "cancelled" // a user cancelled it
	ClassStopped Class = "stopped"   // it did worse than other trials; not a failure
	// It saved its state and resumes from there, by its own choice or after its timeout.
	ClassPreempt Class = "preempted"
	ClassHalt    Class = "halted" // a user stopped it to continue later, or its node shut down; never counted

	// The following classes are derived from the program's output and the node's observations; see
	// package failure.
	ClassCUDAMemory Class = "cuda_oom"        // a GPU ran out of memory
	ClassCUDAShared Class = "cuda_oom_shared" // a GPU that others used as well ran out of memory
	ClassCUDAError  Class = "cuda_error"      // a kernel crashed on the GPU
	ClassGPUModel   Class = "gpu_model"       // the program has no code for this model of GPU
	ClassNCCL       Class = "nccl"            // a collective operation of several processes failed or timed out
	ClassShm        Class = "shm"             // /dev/shm is full
	ClassCheckpoint Class = "checkpoint"      // the saved state to resume from cannot be read
	ClassPort       Class = "port"            // a network port is in use
	ClassNetwork    Class = "network"         // a download or another host failed
	ClassStorage    Class = "storage"         // a file system failed: NFS, FUSE, a bad disk
	ClassDisk       Class = "disk"            // a disk or a quota is full
	ClassLimits     Class = "limits"          // the node's user has no threads, processes or open files left
	ClassDriver     Class = "driver"          // the GPU driver is too old, does not match, or is not ready
	ClassGPULost    Class = "gpu_lost"        // the attempt was given a GPU, but its program sees none
	ClassGPUBusy    Class = "gpu_busy"        // the GPU accepts no further programs
	ClassGPUFault   Class = "gpu_hw"          // a GPU is faulty: ECC, NVLink, fallen off the bus
	// Its node does not have, or does not allow, a folder that its container mounts.
	ClassMount    Class = "mount"
	ClassRegistry Class = "registry" // an image cannot be fetched at the moment
	ClassImage    Class = "image"    // an image is not available for this node
	ClassEngine   Class = "engine"   // the container engine failed, or lacks a feature
)
