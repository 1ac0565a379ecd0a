package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/grid/units"
)

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

// Submission is the body of a request for a new sweep. It describes the sweep in the terms of
// project.yaml, not in those of the store: the master makes the space and the record. Sweeps.Submit
// makes one from a Submit. The names are those that older versions sent, so that a client and a
// master of adjacent versions understand each other.
type Submission struct {
	Token        string       `json:"token,omitempty"`
	Project      string       `json:"project"`
	Name         string       `json:"name,omitempty"`
	Origin       *grid.Origin `json:"origin,omitempty"`
	Task         TaskSpec     `json:"task"`
	Bundle       string       `json:"bundle,omitempty"`
	Space        SpaceSpec    `json:"space"`
	Priority     int          `json:"priority,omitempty"`
	MaxParallel  int          `json:"max_parallel,omitempty"`
	Environ      []string     `json:"environ,omitempty"`
	EnvironAdded []string     `json:"environ_added,omitempty"`
}

// SpaceSpec is the space of a new sweep: all combinations of the axes' values except the excluded
// ones, or a sample of them.
type SpaceSpec struct {
	Axes    []space.Axis  `json:"axes,omitempty"`
	Exclude []string      `json:"exclude,omitempty"`
	Sample  *space.Sample `json:"sample,omitempty"`
}

// SpecOf returns a space in the form of a request.
func SpecOf(s space.Space) SpaceSpec {
	var spec SpaceSpec
	spec.Axes, spec.Exclude = s.Definition()
	if sample, _, ok := s.Sample(); ok {
		spec.Sample = &sample
	}
	return spec
}

// TaskSpec is the task of a new sweep.
type TaskSpec struct {
	Name        string                 `json:"name"`
	Command     []string               `json:"command,omitempty"`
	Shell       string                 `json:"shell,omitempty"`
	Constants   space.Params           `json:"constants,omitempty"`
	Setup       []string               `json:"setup,omitempty"`
	Inputs      []string               `json:"inputs,omitempty"`
	Venv        string                 `json:"venv,omitempty"`
	Share       []string               `json:"share,omitempty"`
	Links       []grid.Link            `json:"links,omitempty"`
	Image       string                 `json:"image,omitempty"`
	Container   *grid.Container        `json:"container,omitempty"`
	Env         map[string]string      `json:"env,omitempty"`
	Resources   grid.Resources         `json:"resources"`
	GPUIDs      string                 `json:"gpu_ids,omitempty"`
	Timeout     Duration               `json:"timeout,omitempty"`
	IdleTimeout Duration               `json:"idle_timeout,omitempty"`
	Grace       Duration               `json:"grace,omitempty"`
	LogLimit    int64                  `json:"log_limit,omitempty"`
	Retries     grid.Retries           `json:"retries"`
	Escalate    map[grid.Class]float64 `json:"escalate,omitempty"`
	MeasureBy   string                 `json:"measure_by,omitempty"`
	Checkpoint  *CheckpointSpec        `json:"checkpoint,omitempty"`
	Order       grid.Order             `json:"order,omitempty"`
	Repeat      bool                   `json:"repeat,omitempty"`
	StopAfter   int64                  `json:"stop_after,omitempty"`
	Stop        *grid.EarlyStop        `json:"stop,omitempty"`
	Preempt     bool                   `json:"preempt,omitempty"`
	NoReplace   bool                   `json:"no_replace,omitempty"`
	Artifacts   []string               `json:"artifacts,omitempty"`
	Metrics     []grid.Source          `json:"metrics,omitempty"`
	Objective   *grid.Objective        `json:"objective,omitempty"`
}

// Duration is a length of time. It is read from text such as "1d12h" or from a number of
// nanoseconds, and written as nanoseconds.
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		var n int64
		if err := json.Unmarshal(b, &n); err != nil {
			return fmt.Errorf("%.60s is not a duration: write it like \"1d12h\"", b)
		}
		*d = Duration(n)
		return nil
	}
	v, err := units.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%.60q is not a duration: write it like \"1d12h\"", text)
	}
	*d = Duration(v)
	return nil
}

// Spec returns a task in the form of a request.
func Spec(t *grid.Task) TaskSpec {
	return TaskSpec{
		Name: t.Name, Command: t.Command, Shell: t.Shell, Constants: t.Constants, Setup: t.Setup, Inputs: t.Inputs,
		Venv: t.Venv, Share: t.Share, Links: t.Links, Image: t.Image, Container: t.Container, Env: t.Env,
		Resources: t.Resources, GPUIDs: t.GPUIDs, Timeout: Duration(t.Timeout), IdleTimeout: Duration(t.IdleTimeout),
		Grace:    Duration(t.Grace),
		LogLimit: t.LogLimit, Retries: t.Retries, Escalate: t.Escalate, MeasureBy: t.MeasureBy,
		Checkpoint: checkpointSpec(t.Checkpoint), Order: t.Order, Repeat: t.Repeat, StopAfter: t.StopAfter,
		Stop: t.Stop, Preempt: t.Preempt, NoReplace: t.NoReplace, Artifacts: t.Artifacts, Metrics: t.Metrics,
		Objective: t.Objective,
	}
}

// Task is the inverse of Spec.
func (t *TaskSpec) Task() grid.Task {
	return grid.Task{
		Name: t.Name, Command: t.Command, Shell: t.Shell, Constants: t.Constants, Setup: t.Setup, Inputs: t.Inputs,
		Venv: t.Venv, Share: t.Share, Links: t.Links, Image: t.Image, Container: t.Container, Env: t.Env,
		Resources: t.Resources, GPUIDs: t.GPUIDs, Timeout: time.Duration(t.Timeout),
		IdleTimeout: time.Duration(t.IdleTimeout), Grace: time.Duration(t.Grace),
		LogLimit: t.LogLimit, Retries: t.Retries, Escalate: t.Escalate, MeasureBy: t.MeasureBy,
		Checkpoint: t.Checkpoint.checkpoint(), Order: t.Order, Repeat: t.Repeat, StopAfter: t.StopAfter, Stop: t.Stop,
		Preempt: t.Preempt, NoReplace: t.NoReplace, Artifacts: t.Artifacts, Metrics: t.Metrics, Objective: t.Objective,
	}
}

// CheckpointSpec is grid.Checkpoint in the form of a request. Fields that are left out get their
// defaults.
type CheckpointSpec struct {
	Signal    string   `json:"signal,omitempty"`
	Grace     Duration `json:"grace,omitempty"`
	Every     Duration `json:"every,omitempty"`
	Quiet     Duration `json:"quiet,omitempty"`
	MaxSize   int64    `json:"max_size,omitempty"`
	Repeats   *int     `json:"repeats,omitempty"`
	OnTimeout string   `json:"on_timeout,omitempty"`
}

func checkpointSpec(c *grid.Checkpoint) *CheckpointSpec {
	if c == nil {
		return nil
	}
	return &CheckpointSpec{
		Signal: c.Signal, Grace: Duration(c.Grace), Every: Duration(c.Every), Quiet: Duration(c.Quiet),
		MaxSize: c.MaxSize,
		Repeats: &c.Repeats, OnTimeout: c.OnTimeout,
	}
}

func (s *CheckpointSpec) checkpoint() *grid.Checkpoint {
	if s == nil {
		return nil
	}
	d := grid.DefaultCheckpoint()
	c := &grid.Checkpoint{
		Signal: cmp.Or(s.Signal, d.Signal), Grace: time.Duration(s.Grace), Every: time.Duration(s.Every),
		Quiet: cmp.Or(time.Duration(s.Quiet), d.Quiet), MaxSize: cmp.Or(s.MaxSize, d.MaxSize), Repeats: d.Repeats,
		OnTimeout: cmp.Or(s.OnTimeout, d.OnTimeout),
	}
	if s.Repeats != nil {
		c.Repeats = *s.Repeats
	}
	return c
}

// checkPlace checks the priority of a sweep and its limit of parallel trials.
func checkPlace(priority, maxParallel int) error {
	switch {
	case priority < -maxPriority || priority > maxPriority:
		return fmt.Errorf("the priority is %d; it must be from -%d to %d", priority, maxPriority, maxPriority)
	case maxParallel < 0:
		return fmt.Errorf("max_parallel is %d. Leave it out for no limit", maxParallel)
	}
	return nil
}

// submission returns the request for s.
func (s *Submit) submission() *Submission {
	return &Submission{
		Token: s.Token, Project: s.Project, Name: s.Name, Origin: s.Origin, Task: Spec(&s.Task), Bundle: s.Bundle,
		Space:    SpecOf(s.Space),
		Priority: s.Priority, MaxParallel: s.MaxParallel, Environ: s.Environ, EnvironAdded: s.EnvironAdded,
	}
}

// Bounds of the parts of a submission besides its task and its space.
const (
	maxToken    = 128
	maxPriority = 1_000_000
)

// Check returns what the request asks for, with its space made from the axes, or an error that
// describes what is wrong. A client calls it before it sends the request, and the master calls it
// again.
func (q *Submission) Check() (*Submit, error) {
	s := &Submit{
		Token: q.Token, Project: q.Project, Name: q.Name, Origin: q.Origin, Task: q.Task.Task(), Bundle: q.Bundle,
		Priority: q.Priority, MaxParallel: q.MaxParallel, Environ: q.Environ, EnvironAdded: q.EnvironAdded,
	}
	if err := errors.Join(grid.CheckProject(s.Project), grid.CheckSweepName(s.Project, s.Name), s.Origin.Check(),
		s.Task.Check()); err != nil {
		return nil, err
	}
	if len(s.Token) > maxToken || strings.ContainsFunc(s.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the submission's token must have at most 128 printable characters")
	}
	if err := checkPlace(s.Priority, s.MaxParallel); err != nil {
		return nil, err
	}
	for _, kv := range append(s.Environ[:len(s.Environ):len(s.Environ)], s.EnvironAdded...) {
		if strings.ContainsRune(kv, 0) {
			return nil, errors.New("an environment variable contains a zero byte")
		}
	}
	for _, kv := range s.EnvironAdded {
		name, _, _ := strings.Cut(kv, "=")
		if err := grid.CheckVariable(name); err != nil {
			return nil, err
		}
	}
	var err error
	s.Space, err = space.New(q.Space.Axes, q.Space.Exclude)
	if err == nil && q.Space.Sample != nil {
		s.Space, err = s.Space.Sampled(*q.Space.Sample, s.Task.Repeat)
	}
	if err != nil {
		return nil, err
	}
	if by := s.Task.MeasureBy; by != "" && !slices.Contains(s.Space.Keys(), by) {
		return nil, fmt.Errorf("measure_by names %q, which is not a parameter of the sweep. Its parameters are %s", by,
			strings.Join(s.Space.Keys(), ", "))
	}
	return s, s.Task.Template().Check(s.Space.Keys())
}
