package grid

import (
	"encoding/json"
)

// The versions of batches. Readers skip unknown fields and kinds, and refuse batches of a version
// above the newest that they know: those contain something that must not be skipped.
const (
	EventVersion       = 1 // of most batches
	RangeVersion       = 2 // of batches with a ReopenedRange
	NewestEventVersion = RangeVersion
)

// EventKind is the kind of fact that an event states.
type EventKind string

// The kinds of events.
const (
	Started  EventKind = "started"  // the attempt began; sent only for attempts that outlive a batch
	Finished EventKind = "finished" // the attempt ended; always sent
	Metrics  EventKind = "metrics"  // the latest metrics of a running attempt
	Reopened EventKind = "reopened" // the user asked for a retry of the trial; written by the master
	// ReopenedRange is Reopened for all trials from Index up to End.
	ReopenedRange EventKind = "reopened-range"

	Released EventKind = "released" // the worker has finished with the lease named by Lease
	Fenced   EventKind = "fenced"   // the attempt has lost its lease, for the reason in Result; written by the master

	// Withdrawn states that a user cancelled a trial that was not running, as described in Result.
	// The master writes it. Programs that do not know the kind treat the trial as pending.
	Withdrawn EventKind = "withdrawn"

	// Reconnected states that an attempt on a node that was away is still running and determines
	// the trial's state again. It fences all other attempts up to Floor. The master writes it;
	// Result holds the reason and the start of the attempt, and Node the node that runs it.
	Reconnected EventKind = "reconnected"
)

// Event is an immutable fact about one attempt or, for Released, about one lease.
type Event struct {
	Kind    EventKind `json:"k"`
	Index   int64     `json:"i"`
	Attempt int       `json:"a,omitempty"`
	// Unique among all runs of the cluster, even if two runs share an attempt number.
	Run  string `json:"r,omitempty"`
	Time int64  `json:"t"` // time of the event in microseconds since 1970
	// With Released: sequence number of the lease in the queue, for masters that do not know
	// LeaseID.
	Lease   uint64  `json:"l,omitempty"`
	LeaseID LeaseID `json:"d,omitempty"` // with Released: the lease
	Result  *Result `json:"x,omitempty"` // with Finished, Fenced, Reconnected and Withdrawn
	Metrics Metric  `json:"m,omitempty"` // with Metrics
	Curves  Curves  `json:"q,omitempty"` // with Metrics
	Final   bool    `json:"z,omitempty"` // with Fenced: the trial is set aside and does not run again
	// With Fenced: the node is unreachable; the attempt may still be alive, and its result counts.
	Away  bool   `json:"w,omitempty"`
	Floor int    `json:"f,omitempty"` // with Reconnected: the highest attempt number given to another run
	End   int64  `json:"e,omitempty"` // with ReopenedRange: the index after the last trial
	Node  NodeID `json:"n,omitempty"` // with Reconnected

	Devices []string `json:"g,omitempty"` // with Started: UUIDs of the attempt's GPUs
	Image   string   `json:"h,omitempty"` // with Started and Finished: the attempt's image, see Sweep.Pinned
}

// Metric maps names to JSON values, mostly numbers.
type Metric map[string]json.RawMessage

// Curves maps names of metrics to their curves, at most MaxCurves of them.
type Curves map[string]Curve

// NoExit is the exit code of an attempt whose program never ran, or whose end was not observed.
const NoExit = -1

// Result is the outcome of an attempt.
type Result struct {
	Class    Class    `json:"c,omitempty"` // ClassNone means success
	ExitCode int      `json:"e,omitempty"` // exit code, 128 + signal, or NoExit
	Reason   string   `json:"y,omitempty"` // for people: what happened, with the last lines of output
	Rule     string   `json:"l,omitempty"` // name of the rule that derived Class from output or other evidence
	Device   string   `json:"v,omitempty"` // UUID of the GPU at fault
	Devices  []string `json:"g,omitempty"` // UUIDs of the attempt's GPUs
	Started  int64    `json:"s"`           // microseconds since 1970
	Usage    Usage    `json:"u"`
	Metrics  Metric   `json:"m,omitempty"`
	Curves   Curves   `json:"q,omitempty"` // of metrics with more than one point; history stores them separately
	Log      LogRef   `json:"o,omitzero"`
	Files    FilesRef `json:"f,omitzero"`
	// Files and folders that the attempt created in its folder, for a task that keeps none of them.
	Left int `json:"d,omitempty"`

	Snapshot int `json:"n,omitempty"` // number of the stored snapshot of its saved state; 0 if there is none
	// Number of the snapshot that it resumed from; 0 for none, and for a folder that was not
	// stored.
	Resumed int `json:"p,omitempty"`
}

// Usage is the resource usage of one attempt.
type Usage struct {
	Wall   int64 `json:"w"`           // microseconds
	CPU    int64 `json:"c"`           // microseconds, user and system, of the whole process tree
	Memory int64 `json:"m,omitempty"` // peak resident memory in bytes

	GPU []DeviceUse `json:"g,omitempty"` // one entry for each device of the attempt, in their order
}

// DeviceUse is the usage of a GPU or a MIG instance by one attempt.
type DeviceUse struct {
	UUID string `json:"d"`
	Peak int64  `json:"m,omitempty"` // peak memory in bytes, as far as it was sampled
	Busy int    `json:"b,omitempty"` // percent of the time in which the whole device was busy

	// Model, Total and Share are set with GPUMemoryAuto: they are the input of the estimate.
	Model string `json:"n,omitempty"` // model of the device
	Total int64  `json:"t,omitempty"` // memory available to trials, in bytes
	Share int64  `json:"s,omitempty"` // memory given to the attempt, in bytes; 0 for a whole device
}

// LogRef locates an attempt's output in the log stream.
type LogRef struct {
	// Sequence number of the first message with output of the attempt; 0 if there was none.
	First uint64 `json:"f,omitempty"`
	Last  uint64 `json:"l,omitempty"`
	Bytes int64  `json:"b,omitempty"` // bytes stored
	Cut   int64  `json:"c,omitempty"` // bytes dropped beyond the limit
}

// FilesRef describes the artifacts that an attempt left.
type FilesRef struct {
	Count int   `json:"n,omitempty"`
	Bytes int64 `json:"b,omitempty"`
}

// Batch is one message of the event stream: events of one sweep from one node, in chronological
// order.
type Batch struct {
	V      int     `json:"v"`
	Sweep  SweepID `json:"s"`
	Node   NodeID  `json:"n"`
	Events []Event `json:"e"`
}
