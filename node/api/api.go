// Package api is the HTTP API of a node: the wire types and the client that the command line uses.
//
// Reads are answered with JSON. Lists that can be long and everything open-ended (trials, output,
// watches) are JSON lines, so neither side ever holds a whole sweep in memory. Fields are only ever
// added, and unknown ones are skipped, so that a client and a node of adjacent versions understand
// each other.
package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"mlfnode/grid"
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
	PathNode     = "/node"
	PathBundles  = "/bundles/"       // + digest; HEAD checks, PUT stores
	PathSweeps   = "/sweeps"         // GET lists, POST submits
	PathSweep    = "/sweeps/{sweep}" // DELETE removes it
	PathDescribe = "/sweeps/{sweep}/description"
	PathAction   = "/sweeps/{sweep}/actions/{action}" // pause, resume, cancel, retry, extend, set, kill
	PathTrials   = "/sweeps/{sweep}/trials"
	PathAttempts = "/sweeps/{sweep}/trials/{index}/attempts"
	PathCurves   = "/sweeps/{sweep}/trials/{index}/curves"
	PathExplain  = "/sweeps/{sweep}/trials/{index}/explain"
	// a separate path, so that a master that does not know it cancels nothing
	PathCancel    = "/sweeps/{sweep}/trials/{index}/cancel"
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

// Node describes the node that answers.
type Node struct {
	Version   string         `json:"version"`
	Node      grid.NodeID    `json:"node"`
	Role      grid.NodeRole  `json:"role,omitempty"`   // master or worker; empty for a standalone node
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
	Sweeps int `json:"sweeps"` // number of finished and cancelled sweeps kept, the newest ones
	// finished and cancelled sweeps older than this are removed; 0 keeps them
	Age  time.Duration `json:"age,omitempty"`
	Logs int64         `json:"logs,omitempty"` // bytes of output kept, the newest output
}

// Error is the body of every response that is not a success, as the client reads it. A node sends a
// Problem.
type Error struct {
	Status int `json:"-"`
	// machine-readable: one of the codes below, or the name of the status, such as not_found
	Code string `json:"code,omitempty"`
	Msg  string `json:"error"`
	Hint string `json:"hint,omitempty"`
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
