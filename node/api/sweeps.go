package api

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

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
	// the container image; pinned to a digest once a trial has run
	Image string `json:"image,omitempty"`
	// abbreviated digests of the file versions that its trials run, the submitted version first
	Bundles []string  `json:"bundles,omitempty"`
	Problem string    `json:"problem,omitempty"`     // why no trial is running although some are pending
	Waits   string    `json:"waits,omitempty"`       // nodes without room for its trials, while none is running
	Sharing []Sharing `json:"gpu_sharing,omitempty"` // the measured GPU shares of its trials, with gpu_memory: auto
	// position behind all output stored so far, from which to watch; only for a single sweep
	LogNext uint64 `json:"log_next,omitempty"`
}

// Description describes what a sweep runs and where it came from. Values of variables that may be
// secrets are left out.
type Description struct {
	Sweep  Sweep     `json:"sweep"`
	Task   TaskSpec  `json:"task"`
	Space  SpaceSpec `json:"space"`
	Bundle string    `json:"bundle,omitempty"` // SHA-256 of the files of the project, in hex
	// names of variables whose values are left out, including those set with --env
	Hidden []string     `json:"hidden"`
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
	// number of points to add to the sample, at most as many as remain; cannot be combined with
	// axes
	Draw int64 `json:"draw,omitempty"`
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
	Sweep Sweep `json:"sweep"`
	// number of trials reopened or added; with dry_run, of trials that the action would change
	Changed int64 `json:"changed"`
	DryRun  bool  `json:"dry_run,omitempty"`
}

// Sweeps reads sweeps, starts them, and acts on them.
type Sweeps struct{ client *Client }

// Sweeps returns the calls about sweeps.
func (c *Client) Sweeps() Sweeps { return Sweeps{c} }

// Submit starts a sweep. When it returns, the sweep is on disk.
func (s Sweeps) Submit(ctx context.Context, sub Submit) (Sweep, error) {
	return post[Sweep](ctx, s.client, PathSweeps, sub.submission())
}

// List lists all sweeps, the oldest first.
func (s Sweeps) List(ctx context.Context) ([]Sweep, error) {
	return get[[]Sweep](ctx, s.client, PathSweeps, nil)
}

// Newest returns the newest sweeps, at most limit of them.
func (s Sweeps) Newest(ctx context.Context, limit int) (SweepList, error) {
	return getJSON[SweepList](ctx, s.client, PathSweeps, url.Values{"limit": {strconv.Itoa(limit)}})
}

// Get returns one sweep; id may be Last.
func (s Sweeps) Get(ctx context.Context, id grid.SweepID) (Sweep, error) {
	return get[Sweep](ctx, s.client, sweepPath(PathSweep, id), nil)
}

// Describe returns what a sweep runs and where it came from. It needs an operator's token, because
// the words of a command may be secrets.
func (s Sweeps) Describe(ctx context.Context, id grid.SweepID) (Description, error) {
	return get[Description](ctx, s.client, sweepPath(PathDescribe, id), nil)
}

// Watch streams what happens in a sweep until it is at rest: finished, cancelled, or paused with
// nothing running. Output starts after the log position after; 0 starts at the beginning of the
// sweep. Start at Sweep.LogNext to see only new output, and at Output.Seq to continue (through a
// SeenOutput, since a position holds many pieces). All output is sent before the last update.
func (s Sweeps) Watch(ctx context.Context, id grid.SweepID, after uint64) iter.Seq2[Update, error] {
	v := url.Values{}
	if after > 0 {
		v.Set("after", strconv.FormatUint(after, 10))
	}
	return stream[Update](ctx, s.client, sweepPath(PathWatch, id), v)
}

// Pause keeps further trials of a sweep from starting; running ones continue to their end.
func (s Sweeps) Pause(ctx context.Context, id grid.SweepID) (Done, error) {
	return s.act(ctx, id, "pause", nil)
}

// Kill pauses the sweep and kills its running trials, which count as not run.
func (s Sweeps) Kill(ctx context.Context, id grid.SweepID) (Done, error) {
	return s.act(ctx, id, "kill", nil)
}

// Resume continues a paused sweep.
func (s Sweeps) Resume(ctx context.Context, id grid.SweepID) (Done, error) {
	return s.act(ctx, id, "resume", nil)
}

// Cancel ends a sweep: running trials are stopped, and the others never run. With save, running
// trials may save their state first.
func (s Sweeps) Cancel(ctx context.Context, id grid.SweepID, save bool) (Done, error) {
	if save {
		return s.act(ctx, id, "cancel?save=true", nil)
	}
	return s.act(ctx, id, "cancel", nil)
}

// Retry runs trials again that did not succeed.
func (s Sweeps) Retry(ctx context.Context, id grid.SweepID, r Retry) (Done, error) {
	return s.act(ctx, id, "retry", r)
}

// Extend adds values to axes; only the new points run.
func (s Sweeps) Extend(ctx context.Context, id grid.SweepID, e Extend) (Done, error) {
	return s.act(ctx, id, "extend", e)
}

// Set changes the priority of a sweep, how many of its trials may run at a time, or their time
// limit.
func (s Sweeps) Set(ctx context.Context, id grid.SweepID, set Set) (Done, error) {
	return s.act(ctx, id, "set", set)
}

// Preview returns what an action on a sweep would change, and changes nothing. The body is the
// action's.
func (s Sweeps) Preview(ctx context.Context, id grid.SweepID, action string, body any) (Done, error) {
	return s.act(ctx, id, action+"?dry_run=true", body)
}

func (s Sweeps) act(ctx context.Context, id grid.SweepID, action string, body any) (Done, error) {
	path := strings.Replace(sweepPath(PathAction, id), "{action}", action, 1)
	return post[Done](ctx, s.client, path, body)
}

// Remove deletes a sweep that does not run from the store, with its events, output, artifacts and
// results.
func (s Sweeps) Remove(ctx context.Context, id grid.SweepID) error {
	return discard(s.client.do(ctx, http.MethodDelete, sweepPath(PathSweep, id), nil, nil))
}
