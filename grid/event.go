package grid

import (
	"encoding/json"
)

// EventVersion is the version of the batches that this program writes. Unknown fields and kinds are skipped by readers.
const EventVersion = 1

// EventKind says what an event states.
type EventKind string

// The kinds of events.
const (
	Started  EventKind = "started"  // the attempt began; sent only for attempts that outlive a batch
	Finished EventKind = "finished" // the attempt ended; always sent
	Metrics  EventKind = "metrics"  // the latest metrics of a running attempt
	Reopened EventKind = "reopened" // the user asked for a retry of the trial; written by the master
	Released EventKind = "released" // the worker is done with a lease; Lease names it
	Fenced   EventKind = "fenced"   // the attempt has lost its lease, and Result says why; written by the master

	// Withdrawn says that a person has cancelled the trial, of which nothing ran; Result says so. Written by the master. Programs that do
	// not know it take the trial for pending.
	Withdrawn EventKind = "withdrawn"

	// Reconnected says that the attempt, on a node that was away, goes on and gives the trial its state. All others up to Floor are
	// fenced by it. Written by the master; Result says why and when the attempt began, and Node where it runs.
	Reconnected EventKind = "reconnected"
)

// Event is an immutable fact about one attempt (or, for Released, about one lease).
type Event struct {
	Kind    EventKind `json:"k"`
	Index   int64     `json:"i"`
	Attempt int       `json:"a,omitempty"`
	Run     string    `json:"r,omitempty"` // unique among all runs of the cluster, also when two share an attempt number
	Time    int64     `json:"t"`           // when it happened, microseconds since 1970
	Lease   uint64    `json:"l,omitempty"` // with Released: sequence of the lease in the queue, for masters that do not know LeaseID
	LeaseID LeaseID   `json:"d,omitempty"` // with Released: the lease
	Result  *Result   `json:"x,omitempty"` // with Finished, Fenced, Reconnected and Withdrawn
	Metrics Metric    `json:"m,omitempty"` // with Metrics
	Curves  Curves    `json:"q,omitempty"` // with Metrics
	Final   bool      `json:"z,omitempty"` // with Fenced: the trial is set aside, and does not run again
	Away    bool      `json:"w,omitempty"` // with Fenced: the node is not heard of; the attempt may turn out to live, and its result counts
	Floor   int       `json:"f,omitempty"` // with Reconnected: the highest attempt number that was given to another run
	Node    NodeID    `json:"n,omitempty"` // with Reconnected

	Devices []string `json:"g,omitempty"` // with Started: UUIDs of the GPUs that the attempt has
	Image   string   `json:"h,omitempty"` // with Started and Finished: the image that it runs in, see Sweep.Pinned
}

// LeaseID names a lease. It is never used twice, unlike a sequence of the queue, of which a crash can lose the newest.
type LeaseID string

// Metric maps names to JSON values (numbers mostly).
type Metric map[string]json.RawMessage

// Curves maps names of metrics to their curves, at most MaxCurves.
type Curves map[string]Curve

// NoExit is the exit code of an attempt whose program never ran, or whose end nobody saw.
const NoExit = -1

// Result is how an attempt ended.
type Result struct {
	Class    Class    `json:"c,omitempty"` // ClassNone is success
	ExitCode int      `json:"e,omitempty"` // exit code, 128 + signal, or NoExit
	Reason   string   `json:"y,omitempty"` // for a person: what happened, with the last lines of output
	Rule     string   `json:"l,omitempty"` // names the rule that told Class from output or other evidence
	Device   string   `json:"v,omitempty"` // UUID of the GPU that is to blame
	Devices  []string `json:"g,omitempty"` // UUIDs of the GPUs that the attempt had
	Started  int64    `json:"s"`           // microseconds since 1970
	Usage    Usage    `json:"u"`
	Metrics  Metric   `json:"m,omitempty"`
	Curves   Curves   `json:"q,omitempty"` // of metrics with more than one point; history keeps them apart
	Log      LogRef   `json:"o,omitzero"`
	Files    FilesRef `json:"f,omitzero"`
	Left     int      `json:"d,omitempty"` // files and folders that it made in its folder, of a task that keeps none of those

	Snapshot int `json:"n,omitempty"` // number of the snapshot that was stored of what it saved; 0 for none
	Resumed  int `json:"p,omitempty"` // number of the snapshot from which it went on; 0 for none, and for a folder that was not stored
}

// bySignal reports whether the exit code is one of a program that a signal ended.
func (r *Result) bySignal() bool { return r.ExitCode > 128 && r.ExitCode <= 128+64 }

// Usage is what one attempt used.
type Usage struct {
	Wall   int64 `json:"w"`           // microseconds
	CPU    int64 `json:"c"`           // microseconds, user and system, the whole tree
	Memory int64 `json:"m,omitempty"` // peak resident bytes

	GPU []DeviceUse `json:"g,omitempty"` // of each device that the attempt was given, in their order
}

// DeviceUse is what one attempt used of a GPU or a MIG instance.
type DeviceUse struct {
	UUID string `json:"d"`
	Peak int64  `json:"m,omitempty"` // bytes of its memory at most, as far as it was seen
	Busy int    `json:"b,omitempty"` // percent of the time in which the whole device computed

	// With GPUMemoryAuto also what the estimate goes by.
	Model string `json:"n,omitempty"` // of the device
	Total int64  `json:"t,omitempty"` // bytes of it that trials may have
	Share int64  `json:"s,omitempty"` // bytes of it that the attempt was given; 0 for a whole device
}

// LogRef says where an attempt's output lies in the log stream.
type LogRef struct {
	First uint64 `json:"f,omitempty"` // sequence of the first message that holds some of it; 0 when there was no output
	Last  uint64 `json:"l,omitempty"`
	Bytes int64  `json:"b,omitempty"` // stored
	Cut   int64  `json:"c,omitempty"` // not stored, over the limit
}

// FilesRef says what artifacts an attempt left.
type FilesRef struct {
	Count int   `json:"n,omitempty"`
	Bytes int64 `json:"b,omitempty"`
}

// Batch is one message of the event stream: events of one sweep from one node, in the order in which they happened.
type Batch struct {
	V      int     `json:"v"`
	Sweep  SweepID `json:"s"`
	Node   NodeID  `json:"n"`
	Events []Event `json:"e"`
}
