// Package api is the HTTP API of a node: the wire types and the client that the command line uses.
//
// Reads are answered with JSON. Lists that can be long and everything open-ended (trials, output,
// watches) are JSON lines, so neither side ever holds a whole sweep in memory. Fields are only ever
// added, and unknown ones are skipped, so that a client and a node of adjacent versions understand
// each other.
package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// The prefixes of every path. A node answers under both. This version's client uses OldPrefix, so
// that a master of the previous version understands it; a node of the next version answers under
// Prefix alone.
const (
	Prefix    = "/api/v1"
	OldPrefix = "/v1"
)

// The paths of the API, below a prefix. {sweep} stands for a sweep's id, its name if no other sweep
// has it, or `last`.
const (
	PathNode      = "/node"
	PathBundles   = "/bundles/"       // + digest; HEAD checks, PUT stores
	PathSweeps    = "/sweeps"         // GET lists, POST submits
	PathSweep     = "/sweeps/{sweep}" // DELETE removes it
	PathDescribe  = "/sweeps/{sweep}/description"
	PathAction    = "/sweeps/{sweep}/actions/{action}" // pause, resume, cancel, retry, extend, set, kill
	PathTrials    = "/sweeps/{sweep}/trials"
	PathAttempts  = "/sweeps/{sweep}/trials/{index}/attempts"
	PathCurves    = "/sweeps/{sweep}/trials/{index}/curves"
	PathExplain   = "/sweeps/{sweep}/trials/{index}/explain"
	PathCancel    = "/sweeps/{sweep}/trials/{index}/cancel" // a separate path, so that a master that does not know it cancels nothing
	PathByHand    = "/sweeps/{sweep}/trials/{index}/command"
	PathLogs      = "/sweeps/{sweep}/logs"
	PathWatch     = "/sweeps/{sweep}/watch"
	PathCharts    = "/sweeps/{sweep}/charts/" // + the name of a chart
	PathDocument  = "/openapi.json"
	PathArtifacts = "/sweeps/{sweep}/artifacts"
	PathBundle    = "/sweeps/{sweep}/bundle" // as submitted with the sweep

	PathMembers      = "/members"
	PathMember       = "/members/{node}"
	PathNodes        = "/nodes"
	PathSamples      = "/nodes/{node}/samples"
	PathMemberAction = "/members/{node}/actions/{action}" // drain, undrain, forget
	PathChallenge    = "/join/challenge"
	PathJoin         = "/join"
	PathCertificate  = "/certificate" // POST renews the requesting node's
	PathTokens       = "/tokens"      // GET lists, POST creates
	PathToken        = "/tokens/{id}"
	PathKeyring      = "/keyring" // POST changes the gossip key
	PathBackup       = "/backup"  // of the master, for its owner
	PathCA           = "/ca"      // GET reports the progress of a rotation of the CA, POST takes the next step
	PathReach        = "/reach"   // POST makes the master try to reach the client
)

// The paths below the root, for programs other than mlfnode.
const (
	PathHealthy = "/healthz"
	PathReady   = "/readyz"
	PathMetrics = "/metrics"
)

// Last is the sweep name that stands for the newest sweep.
const Last = "last"

// Submit is a new sweep. Its bundle must already be stored. On the wire it is a Submission.
type Submit struct {
	Token        string // identifies this submission: submitting it again returns the same sweep
	Project      string
	Name         string
	Origin       *grid.Origin
	Task         grid.Task
	Bundle       string
	Space        space.Space
	Priority     int
	MaxParallel  int
	Environ      []string // of the submitting shell, KEY=value; empty: each node's own
	EnvironAdded []string // overrides single variables of either environment, KEY=value
}

// SweepCounts counts the trials of a sweep by state. They add up to Count.
type SweepCounts struct {
	Sweep     grid.SweepID    `json:"sweep"`
	State     grid.SweepState `json:"state"`
	Count     int64           `json:"count"`
	Pending   int64           `json:"pending"`
	Running   int64           `json:"running"`
	Succeeded int64           `json:"succeeded"`
	Failed    int64           `json:"failed"`
	Cancelled int64           `json:"cancelled"`
	Stopped   int64           `json:"stopped,omitempty"` // the part of cancelled that was stopped early
}

// OnlyCancelled counts the cancelled trials that were not stopped early.
func (c *SweepCounts) OnlyCancelled() int64 { return c.Cancelled - c.Stopped }

// Sweep is a sweep with its counts, as `sweeps --json` prints it.
type Sweep struct {
	SweepCounts

	Project     string          `json:"project"`
	Task        string          `json:"task"`
	Name        string          `json:"name,omitempty"`
	Owner       string          `json:"owner,omitempty"` // the submitting user, as reported by the submitting program
	Priority    int             `json:"priority"`
	MaxParallel int             `json:"max_parallel"`
	Submitted   time.Time       `json:"submitted"`
	Started     *time.Time      `json:"started"` // first attempt
	Ended       *time.Time      `json:"ended"`
	Paused      *time.Time      `json:"paused,omitempty"` // when it was paused
	CPU         float64         `json:"cpu_seconds"`      // CPU time of all results
	ETA         *float64        `json:"eta_seconds"`      // time until the last trial ends; null while unknown
	Keys        []string        `json:"keys"`             // axes
	Metrics     []string        `json:"metrics"`          // metric names seen, in order of first appearance
	Objective   *grid.Objective `json:"objective,omitempty"`
	Image       string          `json:"image,omitempty"`       // the container image; pinned to a digest once a trial has run
	Bundles     []string        `json:"bundles,omitempty"`     // abbreviated digests of the file versions that its trials run, the submitted version first
	Problem     string          `json:"problem,omitempty"`     // why no trial is running although some are pending
	Waits       string          `json:"waits,omitempty"`       // nodes without room for its trials, while none is running
	Sharing     []Sharing       `json:"gpu_sharing,omitempty"` // the measured GPU shares of its trials, with gpu_memory: auto
	LogNext     uint64          `json:"log_next,omitempty"`    // position behind all output stored so far, from which to watch; only for a single sweep
}

// Description describes what a sweep runs and where it came from. Values of variables that may be
// secrets are left out.
type Description struct {
	Sweep  Sweep        `json:"sweep"`
	Task   TaskSpec     `json:"task"`
	Space  SpaceSpec    `json:"space"`
	Bundle string       `json:"bundle,omitempty"` // SHA-256 of the files of the project, in hex
	Hidden []string     `json:"hidden"`           // names of variables whose values are left out, including those set with --env
	Origin *grid.Origin `json:"origin,omitempty"` // null for a sweep of an older version
}

// Sharing is the share of a GPU that trials get, for one model of GPU.
type Sharing struct {
	Model  string `json:"model"`
	Value  string `json:"value,omitempty"` // the parameter in measure_by and its value, like batchsize=64
	Trials int    `json:"trials"`          // how many share a GPU
	Memory int64  `json:"memory"`          // bytes of GPU memory for each
	Text   string `json:"text"`            // human-readable explanation of the share
}

// Trial is one trial, as `trials --json` and `results --json` print it.
type Trial struct {
	Trial    string       `json:"trial"`
	Index    int64        `json:"index"`
	State    grid.State   `json:"state"`
	Attempt  int          `json:"attempt"`  // the attempt that determines the state; 0 before the first
	Attempts int          `json:"attempts"` // number of attempts so far
	Node     grid.NodeID  `json:"node"`
	ExitCode *int         `json:"exit_code"`       // 128 + the signal number if a signal ended the program; null until an attempt has ended, and if no program ran
	Class    grid.Class   `json:"class,omitempty"` // failure class of its last attempt
	Reason   string       `json:"reason"`          // human-readable cause of the failure; empty after a success
	Params   space.Params `json:"params"`
	Metrics  grid.Metric  `json:"metrics"`
	Started  *time.Time   `json:"started"`
	Ended    *time.Time   `json:"ended"`
	Usage    Usage        `json:"resources"`
	Output   Printed      `json:"output"`
	Left     int          `json:"left,omitempty"`    // number of files and folders that it created in its work folder and that the task does not keep
	Devices  []string     `json:"devices,omitempty"` // UUIDs of the GPUs assigned to the attempt
	Bundle   string       `json:"bundle,omitempty"`  // abbreviated digest of the file version that it ran, if the sweep has several
}

// Printed describes how much of an ended attempt's output is kept: Bytes and Cut together are what
// the program wrote.
type Printed struct {
	Bytes int64 `json:"bytes"`          // bytes stored when it ended
	Cut   int64 `json:"cut"`            // bytes that were never stored, because they exceeded log_limit or the disk was full
	Gone  Gone  `json:"gone,omitempty"` // how much has been removed since, because the output of all sweeps exceeded retention.logs
}

// Gone describes how much of the stored output has been removed; empty means none.
type Gone string

// The degrees of removal. The beginning is removed first.
const (
	PartGone Gone = "part"
	AllGone  Gone = "all"
)

// Usage is what the attempt used.
type Usage struct {
	Wall   float64  `json:"wall_seconds"`
	CPU    float64  `json:"cpu_seconds"`
	Memory int64    `json:"peak_memory_bytes"`
	GPUs   []GPUUse `json:"gpus,omitempty"` // one entry for each of the attempt's devices
}

// GPUUse is what an attempt used of a GPU or a MIG instance.
type GPUUse struct {
	UUID   string `json:"uuid"`
	Memory int64  `json:"peak_memory_bytes"` // sampled once a second
	Busy   int    `json:"busy_percent"`      // average utilization of the whole device
}

// Curve is the course of one metric of an attempt, in the order in which the program reported it.
type Curve struct {
	Run    string    `json:"run"` // see Attempt
	Metric string    `json:"metric"`
	Steps  []float64 `json:"steps"`
	Values []float32 `json:"values"`
}

// Attempt is one run of a trial.
type Attempt struct {
	Attempt  int         `json:"attempt"`
	Run      string      `json:"run"`
	Node     grid.NodeID `json:"node"`
	Outcome  string      `json:"outcome"` // running, result, retried or superseded
	Class    grid.Class  `json:"class,omitempty"`
	Snapshot int         `json:"snapshot,omitempty"` // number of the snapshot stored from its checkpoint
	Resumed  int         `json:"resumed,omitempty"`  // number of the snapshot that it resumed from
	Rule     string      `json:"rule,omitempty"`     // the rule that determined the class
	Device   string      `json:"device,omitempty"`   // UUID of the GPU that caused the failure
	ExitCode *int        `json:"exit_code"`          // as in Trial
	Reason   string      `json:"reason"`
	Started  *time.Time  `json:"started"`
	Ended    *time.Time  `json:"ended"`
	Usage    Usage       `json:"resources"`
	Output   Printed     `json:"output"`
	Devices  []string    `json:"devices,omitempty"` // as in Trial
	Bundle   string      `json:"bundle,omitempty"`  // as in Trial
}

// ByHand describes how to run a trial without mlfnode: in the project's folder, with the
// environment of the shell that submitted the sweep, which is not shown.
type ByHand struct {
	Trial   string      `json:"trial"`
	Attempt int         `json:"attempt"` // the attempt whose GPUs are used; 0 before the first
	Node    grid.NodeID `json:"node"`
	Project string      `json:"project"`
	Bundle  string      `json:"bundle"` // SHA-256 of the project files that it ran with, in hex; empty if there are none
	Image   string      `json:"image"`  // the container image; empty without a container
	Command []string    `json:"command"`
	Setup   []string    `json:"setup"`
	Env     []Variable  `json:"env"`    // variables set by the task and by mlfnode
	Hidden  []string    `json:"hidden"` // names of further variables, whose values may be secrets
	Script  string      `json:"script"` // the same as a shell script
}

// Variable is an environment variable. In Script, $d is a folder for the files that the program
// leaves.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Explanation describes the state of a trial and, if the trial is waiting, what keeps it from
// running.
type Explanation struct {
	Trial string     `json:"trial"`
	State grid.State `json:"state"`
	Text  string     `json:"text"`            // human-readable description of its state
	Nodes []Obstacle `json:"nodes,omitempty"` // what prevents it from starting, for each node
}

// Obstacle is what keeps a trial from starting on a node.
type Obstacle struct {
	Node grid.NodeID `json:"node,omitempty"` // empty for a standalone node
	Code string      `json:"code"`           // grid.RefusalCode, or away, quarantined, drained, trouble, avoid, quiet
	Text string      `json:"text"`
}

// TrialQuery selects and orders trials. The zero query selects every trial, ordered by index.
type TrialQuery struct {
	States []grid.State
	Class  grid.Class // of the last attempt; without States, only trials that it ended
	Sort   string     // index, started, ended, wall, cpu, memory, state, attempts, objective, or a metric's name
	Desc   bool
	Limit  int64 // 0 means no limit
	Offset int64
	Where  url.Values // more conditions, in the form that charts take: p[KEY], m[NAME], node
}

// Output is a piece of an attempt's output. Pieces of one stream of one run come in order.
type Output struct {
	Index  int64     `json:"index"`
	Run    string    `json:"run"`
	Stream string    `json:"stream"` // stdout, stderr or setup (the setup step that ran for it)
	Offset int64     `json:"offset"` // offset of Data in this stream of the run
	Data   []byte    `json:"data"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq"` // position in the log, from which to continue

	// A piece without data, at the end of Logs, reports what is missing from a run: Cut and Gone as
	// in Printed, in bytes.
	Cut  int64 `json:"cut,omitempty"`
	Gone int64 `json:"gone,omitempty"`
}

// LogQuery selects output. Index -1 selects the whole sweep. For a single trial, the query selects
// the output of its latest attempt, or of Attempt.
type LogQuery struct {
	Index   int64
	Attempt int
	Follow  bool // continue until the sweep or the trial has ended
}

// Update is one line of a watch: exactly one field is set. The last line is a Sweep at rest, of
// which nothing runs any more.
type Update struct {
	Sweep  *Sweep  `json:"sweep,omitempty"`
	Output *Output `json:"output,omitempty"`
	Trial  *Trial  `json:"trial,omitempty"` // a trial that failed or is being rerun
}

// Extend requests new values of axes, or further points of a sample.
type Extend struct {
	Axes []space.Axis `json:"axes,omitempty"`
	Draw int64        `json:"draw,omitempty"` // number of points to add to the sample, at most as many as remain; cannot be combined with axes
}

// Retry requests that trials be run again.
type Retry struct {
	Index      int64      `json:"index"`           // one trial, or -1 for all
	FailedOnly bool       `json:"failed_only"`     // do not rerun cancelled trials
	Class      grid.Class `json:"class,omitempty"` // only trials that failed in this class

	Bundle string `json:"bundle,omitempty"` // digest of a stored bundle to run instead of the submitted one
}

// Set changes settings that a sweep was submitted with; nil leaves a setting unchanged.
type Set struct {
	Priority    *int      `json:"priority,omitempty"`
	MaxParallel *int      `json:"max_parallel,omitempty"` // 0 means no limit
	Timeout     *Duration `json:"timeout,omitempty"`      // for attempts that start from now on; 0 means no limit
}

// Check reports what is wrong with the values.
func (s *Set) Check() error {
	var priority, parallel int
	if s.Priority != nil {
		priority = *s.Priority
	}
	if s.MaxParallel != nil {
		parallel = *s.MaxParallel
	}
	if s.Timeout != nil && *s.Timeout < 0 {
		return fmt.Errorf("the timeout is %s, which is not a duration", time.Duration(*s.Timeout))
	}
	return checkPlace(priority, parallel)
}

// Done is the answer to an action.
type Done struct {
	Sweep   Sweep `json:"sweep"`
	Changed int64 `json:"changed"` // number of trials reopened or added; with dry_run, of trials that the action would change
	DryRun  bool  `json:"dry_run,omitempty"`
}

// Node describes the node that answers.
type Node struct {
	Version   string         `json:"version"`
	Node      grid.NodeID    `json:"node"`
	Role      string         `json:"role,omitempty"`   // master or worker; empty for a standalone node
	Master    string         `json:"master,omitempty"` // HOST:PORT of the API of a worker's master
	State     string         `json:"state_folder"`
	PID       int            `json:"pid"`
	Time      time.Time      `json:"time"`    // the node's clock at the time of the answer
	Working   bool           `json:"working"` // it takes trials; or, for a master that runs none, it is ready
	CPUs      float64        `json:"cpus"`
	Memory    int64          `json:"memory"`
	Orders    []grid.Order   `json:"orders"`   // supported orders of trials, besides index order
	Features  []grid.Feature `json:"features"` // optional features of sweeps that this node supports
	Store     []Store        `json:"store"`
	Retention Retention      `json:"retention"`
}

// Store is the contents of one part of the store.
type Store struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Limit int64  `json:"limit"`
}

// Retention describes what is kept, and for how long.
type Retention struct {
	Sweeps int           `json:"sweeps"`         // number of finished and cancelled sweeps kept, the newest ones
	Age    time.Duration `json:"age,omitempty"`  // finished and cancelled sweeps older than this are removed; 0 keeps them
	Logs   int64         `json:"logs,omitempty"` // bytes of output kept, the newest output
}

// Error is the body of every response that is not a success, as the client reads it. A node sends a
// Problem.
type Error struct {
	Status int    `json:"-"`
	Code   string `json:"code,omitempty"` // machine-readable: one of the codes below, or the name of the status, such as not_found
	Msg    string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

// MediaProblem is the media type of a Problem.
const MediaProblem = "application/problem+json"

// Problem is an Error as a node sends it: the problem details of RFC 9457, together with the fields
// of Error.
type Problem struct {
	Type   string `json:"type"`   // always about:blank; Code is more specific than the status
	Title  string `json:"title"`  // the name of the status
	Status int    `json:"status"` // the HTTP status
	Detail string `json:"detail"` // the same as Msg
	Error
}

// Problem returns the problem details of an error.
func (e *Error) Problem() Problem {
	p := Problem{Type: "about:blank", Title: http.StatusText(e.Status), Status: e.Status, Detail: e.Msg, Error: *e}
	if p.Code == "" {
		p.Code = strings.ReplaceAll(strings.ToLower(p.Title), " ", "_")
	}
	return p
}

// CodeNoBundle is the code of the refusal of a submission whose bundle is not stored, because it
// has been removed in the meantime or was never stored.
const CodeNoBundle = "no_bundle"

// Error returns the message with its hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Hint
}

// Line is one JSON line of a stream: a value, or the error that ended the stream early.
type Line struct {
	Value json.RawMessage `json:"v,omitempty"`
	Error *Error          `json:"error,omitempty"`
}
