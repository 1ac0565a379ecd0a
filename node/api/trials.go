package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// Trial is one trial, as `trials --json` and `results --json` print it.
type Trial struct {
	Trial    string      `json:"trial"`
	Index    int64       `json:"index"`
	State    grid.State  `json:"state"`
	Attempt  int         `json:"attempt"`  // the attempt that determines the state; 0 before the first
	Attempts int         `json:"attempts"` // number of attempts so far
	Node     grid.NodeID `json:"node"`
	// 128 + the signal number if a signal ended the program; null until an attempt has ended, and
	// if no program ran
	ExitCode *int         `json:"exit_code"`
	Class    grid.Class   `json:"class,omitempty"` // failure class of its last attempt
	Reason   string       `json:"reason"`          // human-readable cause of the failure; empty after a success
	Params   space.Params `json:"params"`
	Metrics  grid.Metric  `json:"metrics"`
	Started  *time.Time   `json:"started"`
	Ended    *time.Time   `json:"ended"`
	Usage    Usage        `json:"resources"`
	Output   Printed      `json:"output"`
	// number of files and folders that it created in its work folder and that the task does not
	// keep
	Left    int      `json:"left,omitempty"`
	Devices []string `json:"devices,omitempty"` // UUIDs of the GPUs assigned to the attempt
	// abbreviated digest of the file version that it ran, if the sweep has several
	Bundle string `json:"bundle,omitempty"`
}

// Printed describes how much of an ended attempt's output is kept: Bytes and Cut together are what
// the program wrote.
type Printed struct {
	Bytes int64 `json:"bytes"` // bytes stored when it ended
	// bytes that were never stored, because they exceeded log_limit or the disk was full
	Cut int64 `json:"cut"`
	// how much has been removed since, because the output of all sweeps exceeded retention.logs
	Gone Gone `json:"gone,omitempty"`
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
	// SHA-256 of the project files that it ran with, in hex; empty if there are none
	Bundle  string     `json:"bundle"`
	Image   string     `json:"image"` // the container image; empty without a container
	Command []string   `json:"command"`
	Setup   []string   `json:"setup"`
	Env     []Variable `json:"env"`    // variables set by the task and by mlfnode
	Hidden  []string   `json:"hidden"` // names of further variables, whose values may be secrets
	Script  string     `json:"script"` // the same as a shell script
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

// PathRunFiles is where a node puts the files that one of its runs has left.
const PathRunFiles = "/runs/{sweep}/{index}/{run}/artifacts"

// Trials reads the trials of sweeps with their results, and cancels them.
type Trials struct{ client *Client }

// Trials returns the calls about trials.
func (c *Client) Trials() Trials { return Trials{c} }

// List streams the trials that the query selects.
func (t Trials) List(ctx context.Context, id grid.SweepID, q TrialQuery) iter.Seq2[Trial, error] {
	return stream[Trial](ctx, t.client, sweepPath(PathTrials, id), q.values())
}

// ListFields is like List, for trials of which only these fields are set: fields of the API's
// tables, p[KEY] for a parameter and m[NAME] for a metric, at most MaxFieldsQuery.
func (t Trials) ListFields(
	ctx context.Context, id grid.SweepID, q TrialQuery, fields []string,
) iter.Seq2[Trial, error] {
	return func(yield func(Trial, error) bool) {
		v := q.values()
		v["field"] = fields
		u := Prefix + sweepPath(PathTrials, id)
		resp, err := t.client.send(ctx, http.MethodGet, u, v, nil, "application/x-ndjson")
		if err != nil {
			yield(Trial{}, err)
			return
		}
		defer resp.Body.Close()
		r := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			raw, err := r.ReadBytes('\n')
			if err == io.EOF && len(raw) == 0 {
				return // a list that is cut ends with another error
			}
			if err != nil {
				yield(Trial{}, lost(ctx, err))
				return
			}
			t, err := decodeFields(raw, fields)
			if !yield(t, err) || err != nil {
				return
			}
		}
	}
}

// decodeFields decodes an object with these fields of a trial.
func decodeFields(raw []byte, fields []string) (t Trial, err error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return t, fmt.Errorf("decode line %.60q: %w", raw, err)
	}
	for _, name := range fields {
		value := values[name]
		if len(value) == 0 || string(value) == "null" {
			continue
		}
		name = strings.TrimSuffix(name, "]")
		if key, found := strings.CutPrefix(name, "m["); found {
			if t.Metrics == nil {
				t.Metrics = grid.Metric{}
			}
			t.Metrics[key] = value
			continue
		}
		if key, found := strings.CutPrefix(name, "p["); found {
			t.Params = append(t.Params, space.Param{Key: key})
			err = t.Params[len(t.Params)-1].Value.UnmarshalJSON(value)
		} else if to := t.field(name); to != nil {
			err = json.Unmarshal(value, to)
		}
		if err != nil {
			return t, fmt.Errorf("decode %s of line %.60q: %w", name, raw, err)
		}
	}
	return t, nil
}

// field returns a pointer to what a column of the API's tables is about, nil for an unknown name.
func (t *Trial) field(name string) any {
	switch name {
	case "index":
		return &t.Index
	case "state":
		return &t.State
	case "attempt":
		return &t.Attempt
	case "attempts":
		return &t.Attempts
	case "node":
		return &t.Node
	case "class":
		return &t.Class
	case "exit_code":
		return &t.ExitCode
	case "reason":
		return &t.Reason
	case "started":
		return &t.Started
	case "ended":
		return &t.Ended
	case "wall_seconds":
		return &t.Usage.Wall
	case "cpu_seconds":
		return &t.Usage.CPU
	case "peak_memory_bytes":
		return &t.Usage.Memory
	}
	return nil
}

// values returns the query in the form of a URL query.
func (q *TrialQuery) values() url.Values {
	v := url.Values{}
	maps.Copy(v, q.Where)
	for _, s := range q.States {
		v.Add("state", string(s))
	}
	if q.Class != "" {
		v.Set("class", string(q.Class))
	}
	if q.Sort != "" {
		v.Set("sort", q.Sort)
	}
	if q.Desc {
		v.Set("desc", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.FormatInt(q.Limit, 10))
	}
	if q.Offset > 0 {
		v.Set("offset", strconv.FormatInt(q.Offset, 10))
	}
	return v
}

// Table returns a page of the selected trials, with these columns. Numbers are json.Number, with
// all of their digits.
func (t Trials) Table(ctx context.Context, id grid.SweepID, q TrialQuery, fields []string) (TrialTable, error) {
	v := q.values()
	v["field"] = fields
	return getJSON[TrialTable](ctx, t.client, sweepPath(PathTrials, id), v)
}

// Attempts lists every known attempt of a trial, in order, from the first.
func (t Trials) Attempts(ctx context.Context, id grid.TrialID) ([]Attempt, error) {
	return get[[]Attempt](ctx, t.client, trialPath(PathAttempts, id), nil)
}

// Curves returns the curves of the metrics of all attempts of a trial.
func (t Trials) Curves(ctx context.Context, id grid.TrialID) ([]Curve, error) {
	return get[[]Curve](ctx, t.client, trialPath(PathCurves, id), nil)
}

// Explain returns the state of a trial and, if the trial is waiting, the reasons.
func (t Trials) Explain(ctx context.Context, id grid.TrialID) (Explanation, error) {
	return get[Explanation](ctx, t.client, trialPath(PathExplain, id), nil)
}

// Cancel ends one trial: a running attempt is stopped, and the trial does not run again.
func (t Trials) Cancel(ctx context.Context, id grid.TrialID) (Done, error) {
	return post[Done](ctx, t.client, trialPath(PathCancel, id), nil)
}

// Failures returns the failed trials of a sweep, grouped by class.
func (t Trials) Failures(ctx context.Context, id grid.SweepID) (Failures, error) {
	return get[Failures](ctx, t.client, sweepPath(PathFailures, id), nil)
}

// Chart returns a chart of a sweep, as JSON; the query may be nil.
func (t Trials) Chart(ctx context.Context, id grid.SweepID, name string, q url.Values) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, t.client, sweepPath(PathCharts, id)+name, q)
}

// Artifacts returns a tar stream of the files that trials left, each in a folder named by its
// trial's index. Index -1 selects all trials.
func (t Trials) Artifacts(ctx context.Context, id grid.SweepID, index int64) (io.ReadCloser, error) {
	v := url.Values{"index": {strconv.FormatInt(index, 10)}}
	return body(t.client.do(ctx, http.MethodGet, sweepPath(PathArtifacts, id), v, nil))
}

// PutArtifacts stores the artifacts of a run. The client must present the certificate of the run's
// node.
func (t Trials) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	path := strings.Replace(trialPath(PathRunFiles, id), "{run}", url.PathEscape(run), 1)
	return discard(t.client.do(ctx, http.MethodPut, path, nil, io.NopCloser(r)))
}
