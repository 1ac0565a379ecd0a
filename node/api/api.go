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
	Stopped   int64           `json:"stopped,omitempty"` // of the cancelled ones, those that were stopped early
}

// OnlyCancelled counts the cancelled trials that were not stopped early.
func (c *SweepCounts) OnlyCancelled() int64 { return c.Cancelled - c.Stopped }

// Sweep is a sweep with its counts, as `sweeps --json` prints it.
type Sweep struct {
	SweepCounts

	Project     string          `json:"project"`
	Task        string          `json:"task"`
	Name        string          `json:"name,omitempty"`
	Owner       string          `json:"owner,omitempty"` // the user who submitted it, as the program that did so said
	Priority    int             `json:"priority"`
	MaxParallel int             `json:"max_parallel"`
	Submitted   time.Time       `json:"submitted"`
	Started     *time.Time      `json:"started"` // first attempt
	Ended       *time.Time      `json:"ended"`
	Paused      *time.Time      `json:"paused,omitempty"` // since when
	CPU         float64         `json:"cpu_seconds"`      // of all results
	ETA         *float64        `json:"eta_seconds"`      // until the last trial ends; null while unknown
	Keys        []string        `json:"keys"`             // axes
	Metrics     []string        `json:"metrics"`          // metric names seen, in order of first appearance
	Objective   *grid.Objective `json:"objective,omitempty"`
	Image       string          `json:"image,omitempty"`       // that its trials run in, by its digest once one has run
	Bundles     []string        `json:"bundles,omitempty"`     // short digests of the files that its trials run, those of the submission first
	Problem     string          `json:"problem,omitempty"`     // why nothing runs although something is pending
	Waits       string          `json:"waits,omitempty"`       // nodes that have no room for its trials, while none of them runs
	Sharing     []Sharing       `json:"gpu_sharing,omitempty"` // what its trials get of GPUs by what was measured, with gpu_memory: auto
	LogNext     uint64          `json:"log_next,omitempty"`    // position behind all output stored so far, for Watch; only for a single sweep
}

// Description describes what a sweep runs and where it came from. Values of variables that may be
// secrets are left out.
type Description struct {
	Sweep  Sweep        `json:"sweep"`
	Task   TaskSpec     `json:"task"`
	Space  SpaceSpec    `json:"space"`
	Bundle string       `json:"bundle,omitempty"` // SHA-256 of the files of the project, in hex
	Hidden []string     `json:"hidden"`           // names of variables whose values are left out, and of those of --env
	Origin *grid.Origin `json:"origin,omitempty"` // null for a sweep of an older version
}

// Sharing is the share of a GPU that trials get, for one model of GPU.
type Sharing struct {
	Model  string `json:"model"`
	Value  string `json:"value,omitempty"` // the parameter in measure_by and its value, like batchsize=64
	Trials int    `json:"trials"`          // that share a GPU
	Memory int64  `json:"memory"`          // bytes of it that each gets
	Text   string `json:"text"`            // what trials get and why, for a person
}

// Trial is one trial, as `trials --json` and `results --json` print it.
type Trial struct {
	Trial    string       `json:"trial"`
	Index    int64        `json:"index"`
	State    grid.State   `json:"state"`
	Attempt  int          `json:"attempt"`  // the attempt that gives the state; 0 before the first
	Attempts int          `json:"attempts"` // how many are known
	Node     grid.NodeID  `json:"node"`
	ExitCode *int         `json:"exit_code"`       // 128 + signal after a signal; null until an attempt has ended, and where no program did
	Class    grid.Class   `json:"class,omitempty"` // how its last attempt failed
	Reason   string       `json:"reason"`          // what went wrong, for a person; empty after a success
	Params   space.Params `json:"params"`
	Metrics  grid.Metric  `json:"metrics"`
	Started  *time.Time   `json:"started"`
	Ended    *time.Time   `json:"ended"`
	Usage    Usage        `json:"resources"`
	Output   Printed      `json:"output"`
	Left     int          `json:"left,omitempty"`    // files and folders that it made in its folder, of a task that keeps none of those
	Devices  []string     `json:"devices,omitempty"` // UUIDs of the GPUs that the attempt has or had
	Bundle   string       `json:"bundle,omitempty"`  // short digest of the files that it ran, where the sweep has more than one
}

// Printed describes how much of an ended attempt's output is kept: Bytes and Cut together are what
// the program wrote.
type Printed struct {
	Bytes int64 `json:"bytes"`          // stored when it ended
	Cut   int64 `json:"cut"`            // bytes that were never stored: over log_limit, or the disk was full
	Gone  Gone  `json:"gone,omitempty"` // removed since, because all output was over retention.logs
}

// Gone describes how much of the stored output has been removed; empty means none.
type Gone string

// The degrees of removal. The beginning is removed first.
const (
	PartGone Gone = "part"
	AllGone  Gone = "all"
)

// Resources are what the attempt used.
type Usage struct {
	Wall   float64  `json:"wall_seconds"`
	CPU    float64  `json:"cpu_seconds"`
	Memory int64    `json:"peak_memory_bytes"`
	GPUs   []GPUUse `json:"gpus,omitempty"` // of each of the attempt's devices
}

// GPUUse is what an attempt used of a GPU or a MIG instance.
type GPUUse struct {
	UUID   string `json:"uuid"`
	Memory int64  `json:"peak_memory_bytes"` // as far as it was seen: once in a second
	Busy   int    `json:"busy_percent"`      // of the whole device, on average
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
	Snapshot int         `json:"snapshot,omitempty"` // number of the one that was stored of what it saved
	Resumed  int         `json:"resumed,omitempty"`  // number of the snapshot that it continued from
	Rule     string      `json:"rule,omitempty"`     // which rule told the class
	Device   string      `json:"device,omitempty"`   // UUID of the GPU that is to blame
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
	Attempt int         `json:"attempt"` // whose GPUs these are; 0 while there is none
	Node    grid.NodeID `json:"node"`
	Project string      `json:"project"`
	Bundle  string      `json:"bundle"` // SHA-256 of the files of the project that it ran with, in hex; empty for none
	Image   string      `json:"image"`  // of the container; empty for none
	Command []string    `json:"command"`
	Setup   []string    `json:"setup"`
	Env     []Variable  `json:"env"`    // that the task and mlfnode add
	Hidden  []string    `json:"hidden"` // names of variables that are added, too, and may hold secrets
	Script  string      `json:"script"` // all of it for a shell
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
	Text  string     `json:"text"`            // how it stands in its sweep, for people
	Nodes []Obstacle `json:"nodes,omitempty"` // what is in the way, on each node
}

// Obstacle is what keeps a trial from starting on a node.
type Obstacle struct {
	Node grid.NodeID `json:"node,omitempty"` // empty for a node that stands alone
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
	Stream string    `json:"stream"` // stdout, stderr, or setup for the setup step that ran for it
	Offset int64     `json:"offset"` // of Data in the stream of this run
	Data   []byte    `json:"data"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq"` // position in the log, to go on from

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
	Follow  bool // continue until the sweep (or the trial) has ended
}

// Update is one line of a watch: exactly one field is set. The last line is a Sweep at rest, of
// which nothing runs any more.
type Update struct {
	Sweep  *Sweep  `json:"sweep,omitempty"`
	Output *Output `json:"output,omitempty"`
	Trial  *Trial  `json:"trial,omitempty"` // a trial that failed or is run again
}

// Extend requests new values of axes, or further points of a sample.
type Extend struct {
	Axes []space.Axis `json:"axes,omitempty"`
	Draw int64        `json:"draw,omitempty"` // how many points to add to the sample, at most as many as are left; goes without axes
}

// Retry requests that trials be run again.
type Retry struct {
	Index      int64      `json:"index"`           // one trial, or -1 for all
	FailedOnly bool       `json:"failed_only"`     // leave cancelled trials as they are
	Class      grid.Class `json:"class,omitempty"` // only trials that failed in this class

	Bundle string `json:"bundle,omitempty"` // digest of the files to run instead of those of the submission; stored before
}

// Set changes settings that a sweep was submitted with; nil leaves a setting unchanged.
type Set struct {
	Priority    *int      `json:"priority,omitempty"`
	MaxParallel *int      `json:"max_parallel,omitempty"` // 0 means no limit
	Timeout     *Duration `json:"timeout,omitempty"`      // of attempts that begin from now on; 0 means no limit
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
	Changed int64 `json:"changed"` // trials reopened or added; with dry_run, trials that the action would change
	DryRun  bool  `json:"dry_run,omitempty"`
}

// Node describes the node that answers.
type Node struct {
	Version   string         `json:"version"`
	Node      grid.NodeID    `json:"node"`
	Role      string         `json:"role,omitempty"`   // master or worker; empty for one that stands alone
	Master    string         `json:"master,omitempty"` // HOST:PORT of the API of a worker's master
	State     string         `json:"state_folder"`
	PID       int            `json:"pid"`
	Time      time.Time      `json:"time"`    // by its clock, when it answered
	Working   bool           `json:"working"` // it takes trials, or needs nothing more to be a master that runs none
	CPUs      float64        `json:"cpus"`
	Memory    int64          `json:"memory"`
	Orders    []grid.Order   `json:"orders"`   // in which it can run the trials of a sweep, beside that by index
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
	Sweeps int           `json:"sweeps"`         // finished and cancelled sweeps kept, the newest
	Age    time.Duration `json:"age,omitempty"`  // finished and cancelled sweeps older than this go; 0 keeps them
	Logs   int64         `json:"logs,omitempty"` // bytes of output kept, the newest
}

// Error is the body of every response that is not a success, as the client reads it. A node sends a
// Problem.
type Error struct {
	Status int    `json:"-"`
	Code   string `json:"code,omitempty"` // what went wrong, for programs: one of the codes below, or of the status, like not_found
	Msg    string `json:"error"`
	Hint   string `json:"hint,omitempty"`
}

// MediaProblem is the media type of a Problem.
const MediaProblem = "application/problem+json"

// Problem is an Error as a node sends it: the problem details of RFC 9457, together with the fields
// of Error.
type Problem struct {
	Type   string `json:"type"`   // about:blank: what the status means, Code says more closely
	Title  string `json:"title"`  // the words of the status
	Status int    `json:"status"` // as in the answer's first line
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
