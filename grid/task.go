package grid

import (
	"time"

	"mlfnode/grid/command"
	"mlfnode/grid/space"
)

// Task is a named command of a project with everything that an executor needs to run it. The loader
// fills in defaults, so a Task in a sweep record is complete.
type Task struct {
	Name    string   `json:"name"`
	Command []string `json:"command,omitempty"` // program and arguments; empty when Shell is set
	Shell   string   `json:"shell,omitempty"`   // a script for `/bin/sh -c`

	Constants space.Params `json:"constants,omitempty"` // fixed options; an axis with the same key overrides one
	Setup     []string     `json:"setup,omitempty"`     // program and arguments, run once for each node and bundle
	// Patterns of the files that the setup step reads; empty means all.
	Inputs []string `json:"inputs,omitempty"`
	// Folder of a virtual environment that the setup step creates and trials run in.
	Venv string `json:"venv,omitempty"`
	// Patterns of read-only files that attempts see in place instead of as copies.
	Share     []string          `json:"share,omitempty"`
	Links     []Link            `json:"links,omitempty"`     // paths outside of the project that attempts see in place
	Image     string            `json:"image,omitempty"`     // container image; empty runs a plain process
	Container *Container        `json:"container,omitempty"` // container settings; nil means the defaults
	Env       map[string]string `json:"env,omitempty"`       // added to the environment; $VAR and ${VAR} are expanded

	Resources Resources `json:"resources"`
	// How CUDA_VISIBLE_DEVICES identifies the GPUs: "" by UUID, or GPUIDsIndex.
	GPUIDs  string        `json:"gpu_ids,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"` // maximum run time of one attempt; 0 means no limit
	// Maximum time without output of one attempt; 0 means no limit.
	IdleTimeout time.Duration `json:"idle_timeout,omitempty"`
	Grace       time.Duration `json:"grace,omitempty"` // between TERM and KILL; 0 means DefaultGrace
	// Bytes of output stored for one attempt; 0 means DefaultLogLimit.
	LogLimit   int64       `json:"log_limit,omitempty"`
	Retries    Retries     `json:"retries"`
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"` // nil means that trials start over

	// Escalate maps failure classes to the factor by which a retry gets more memory than the
	// previous attempt.
	Escalate map[Class]float64 `json:"escalate,omitempty"`
	// MeasureBy names the axis whose values have separate measurements of GPU memory, with
	// GPUMemoryAuto; "" measures all trials together.
	MeasureBy string `json:"measure_by,omitempty"`

	Order  Order `json:"order,omitempty"`  // order in which trials start
	Repeat bool  `json:"repeat,omitempty"` // the axis RepeatKey only repeats trials and is not an option

	// StopAfter is how many trials may fail before no more are started; 0 means no limit.
	StopAfter int64 `json:"stop_after,omitempty"`
	// Stop stops trials that do worse than others; nil lets all trials run to their end.
	Stop *EarlyStop `json:"stop,omitempty"`

	// Trials of lower priority that can save their state make room for this task.
	Preempt bool `json:"preempt,omitempty"`
	// A second run does harm: a trial waits for its node, however long the node is away.
	NoReplace bool `json:"no_replace,omitempty"`

	Artifacts []string   `json:"artifacts,omitempty"` // glob patterns relative to the attempt's folder, `**` allowed
	Metrics   []Source   `json:"metrics,omitempty"`
	Objective *Objective `json:"objective,omitempty"`
}

// GPUIDsIndex identifies GPUs by index, for programs that expect numbers in CUDA_VISIBLE_DEVICES.
const GPUIDsIndex = "index"

// DefaultGrace is how long a process tree has to end after TERM before it is killed.
const DefaultGrace = 10 * time.Second

// DefaultLogLimit is how many bytes of one attempt's output are stored.
const DefaultLogLimit = 256 << 20

// Retries maps failure classes to the number of retries after a failure of the class.
type Retries map[Class]int

// Source is a source of an attempt's metrics. Exactly one of Log, Regex and JSON is set.
type Source struct {
	// A JSON list or a JSON lines file in the attempt's folder; the last entry counts.
	Log   string `json:"log,omitempty"`
	Regex string `json:"regex,omitempty"` // named groups, matched on each line of output; the last match counts
	JSON  string `json:"json,omitempty"`  // "stdout": the last line of stdout that is a JSON object

	// Optional is set if missing metrics are expected.
	Optional bool `json:"optional,omitempty"`
}

// Objective is the metric that ranks trials.
type Objective struct {
	Metric string `json:"metric"`
	Goal   string `json:"goal"` // "maximize" or "minimize"
}

// Template returns the command of the task, from which the commands of its points are built.
func (t *Task) Template() *command.Template {
	return &command.Template{Args: t.Command, Shell: t.Shell, Constants: t.Constants, Repeat: t.Repeat}
}
