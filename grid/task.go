package grid

import (
	"time"

	"mlfnode/grid/command"
	"mlfnode/grid/space"
)

// Task is a named command of a project with everything that an executor needs to run it. Defaults are filled in by the
// loader, so a Task in a sweep record is complete.
type Task struct {
	Name    string   `json:"name"`
	Command []string `json:"command,omitempty"` // program and arguments; empty when Shell is set
	Shell   string   `json:"shell,omitempty"`   // one string for `/bin/sh -c`

	Constants space.Params      `json:"constants,omitempty"` // fixed options under the grid; an axis of the same key wins
	Setup     []string          `json:"setup,omitempty"`     // run once for each node and bundle, program and arguments
	Inputs    []string          `json:"inputs,omitempty"`    // patterns of the files that the setup step reads; empty stands for all
	Venv      string            `json:"venv,omitempty"`      // folder of a virtual environment that the setup step makes, which trials run in
	Share     []string          `json:"share,omitempty"`     // patterns of read-only files that attempts see in place instead of copies
	Links     []Link            `json:"links,omitempty"`     // what they see in place of what lies outside of the project
	Image     string            `json:"image,omitempty"`     // container image; empty runs a plain process
	Container *Container        `json:"container,omitempty"` // how the container is made; nil is the default
	Env       map[string]string `json:"env,omitempty"`       // added to the environment; $VAR and ${VAR} are expanded

	Resources   Resources     `json:"resources"`
	GPUIDs      string        `json:"gpu_ids,omitempty"`      // how CUDA_VISIBLE_DEVICES names the GPUs: "" by UUID, or GPUIDsIndex
	Timeout     time.Duration `json:"timeout,omitempty"`      // longest run of one attempt; 0 is no limit
	IdleTimeout time.Duration `json:"idle_timeout,omitempty"` // longest silence of one attempt; 0 is no limit
	Grace       time.Duration `json:"grace,omitempty"`        // between TERM and KILL; 0 means DefaultGrace
	LogLimit    int64         `json:"log_limit,omitempty"`    // bytes of output kept for one attempt; 0 means DefaultLogLimit
	Retries     Retries       `json:"retries"`
	Checkpoint  *Checkpoint   `json:"checkpoint,omitempty"` // nil: trials start over

	// Escalate gives, by failure class, the factor by which a retry gets more memory than the attempt before it.
	Escalate map[Class]float64 `json:"escalate,omitempty"`
	// MeasureBy names the axis by whose values the memory of a GPU is measured apart, with GPUMemoryAuto; "" has all trials measured alike.
	MeasureBy string `json:"measure_by,omitempty"`

	Order  Order `json:"order,omitempty"`  // in which trials begin
	Repeat bool  `json:"repeat,omitempty"` // the axis RepeatKey only repeats trials: it is no option

	// StopAfter is how many trials may fail before no further one begins; 0 is no limit.
	StopAfter int64 `json:"stop_after,omitempty"`
	// Stop has trials stopped that do worse than others; nil lets all run to their end.
	Stop *EarlyStop `json:"stop,omitempty"`

	Preempt   bool `json:"preempt,omitempty"`    // trials of lower priority that can save their state make room for it
	NoReplace bool `json:"no_replace,omitempty"` // a second run does harm: a trial waits for its node, however long that is away

	Artifacts []string   `json:"artifacts,omitempty"` // glob patterns relative to the attempt's folder, `**` allowed
	Metrics   []Source   `json:"metrics,omitempty"`
	Objective *Objective `json:"objective,omitempty"`
}

// GPUIDsIndex has GPUs named by their index, for programs that take CUDA_VISIBLE_DEVICES for numbers.
const GPUIDsIndex = "index"

// DefaultGrace is how long a process tree may take to end after TERM before it is killed.
const DefaultGrace = 10 * time.Second

// DefaultLogLimit is how many bytes of one attempt's output are kept.
const DefaultLogLimit = 256 << 20

// Retries says how often an attempt that failed in a class is run again, for each class apart.
type Retries map[Class]int

// Source says where an attempt's metrics are read: exactly one of Log, Regex and JSON is set.
type Source struct {
	Log   string `json:"log,omitempty"`   // a JSON list or JSON lines file under the attempt's folder; the last entry counts
	Regex string `json:"regex,omitempty"` // named groups, matched on each line of output; the last match counts
	JSON  string `json:"json,omitempty"`  // "stdout": the last line of stdout that is a JSON object

	// Optional is set where it is no surprise that there are no metrics.
	Optional bool `json:"optional,omitempty"`
}

// Objective is the metric that ranks trials.
type Objective struct {
	Metric string `json:"metric"`
	Goal   string `json:"goal"` // "maximize" or "minimize"
}

// Argv returns the program and arguments of one point, as command.Template does.
func (t *Task) Argv(p space.Params) []string { return t.template().Argv(p) }

// CheckCommand says why the task's command can't take parameters with these keys, as command.Template does.
func (t *Task) CheckCommand(keys []string) error { return t.template().Check(keys) }

// Display returns the command of one point as a line that a person can read and paste into a shell.
func (t *Task) Display(p space.Params) string { return t.template().Display(p) }

func (t *Task) template() *command.Template {
	return &command.Template{Args: t.Command, Shell: t.Shell, Constants: t.Constants, Repeat: t.Repeat}
}
