package api

// PathFlower is the root of Flower's API, for scripts that were written for it.
const PathFlower = "/flower"

// FlowerTask is a trial as Flower shows a task. Times are in seconds since 1970; null means not
// yet, or never.
type FlowerTask struct {
	UUID       string   `json:"uuid"` // SWEEP/INDEX
	Name       string   `json:"name"` // PROJECT.TASK
	State      string   `json:"state"`
	Received   *float64 `json:"received"` // when the attempt started, at most a moment after the trial was leased
	Sent       *float64 `json:"sent"`     // when the sweep was submitted
	Started    *float64 `json:"started"`
	Rejected   *float64 `json:"rejected"`
	Succeeded  *float64 `json:"succeeded"`
	Failed     *float64 `json:"failed"`
	Retried    *float64 `json:"retried"`
	Revoked    *float64 `json:"revoked"`
	Args       string   `json:"args"`
	Kwargs     string   `json:"kwargs"` // the parameters, as Python writes them
	ETA        *string  `json:"eta"`
	Expires    *string  `json:"expires"`
	Retries    int      `json:"retries"`
	Result     *string  `json:"result"`    // the metrics, as JSON
	Exception  *string  `json:"exception"` // the first line of the reason
	Timestamp  float64  `json:"timestamp"` // time of the last change
	Runtime    *float64 `json:"runtime"`   // seconds
	Traceback  *string  `json:"traceback"` // the whole reason
	Exchange   string   `json:"exchange"`
	RoutingKey string   `json:"routing_key"` // the sweep
	Clock      uint64   `json:"clock"`
	Client     string   `json:"client"`
	Root       string   `json:"root"`
	RootID     string   `json:"root_id"`
	Parent     *string  `json:"parent"`
	ParentID   *string  `json:"parent_id"`
	Children   []string `json:"children"`
	Worker     string   `json:"worker"` // the node
}

// FlowerResult is the result of a trial, as Flower shows the result of a task.
type FlowerResult struct {
	Task      string  `json:"task-id"`
	State     string  `json:"state"`
	Result    any     `json:"result,omitempty"`
	Traceback *string `json:"traceback,omitempty"`
}

// FlowerTypes lists the tasks of the stored sweeps.
type FlowerTypes struct {
	Types []string `json:"task-types"`
}

// FlowerQueues lists the active sweeps, as Flower shows queues.
type FlowerQueues struct {
	Queues []FlowerLength `json:"active_queues"`
}

// FlowerLength is the number of pending trials of an active sweep.
type FlowerLength struct {
	Name     string `json:"name"`
	Messages int64  `json:"messages"`
}

// FlowerMessage is the answer to an action.
type FlowerMessage struct {
	Message string `json:"message"`
}

// FlowerWorker is a node, as Flower shows a worker. The last four fields are present when one
// worker is requested.
type FlowerWorker struct {
	Registered []string       `json:"registered"`
	Timestamp  float64        `json:"timestamp"`
	Stats      FlowerStats    `json:"stats"`
	Queues     []FlowerQueue  `json:"active_queues"`
	Conf       map[string]any `json:"conf"`

	Scheduled *[]FlowerActive `json:"scheduled,omitempty"`
	Active    *[]FlowerActive `json:"active,omitempty"`
	Reserved  *[]FlowerActive `json:"reserved,omitempty"`
	Revoked   *[]string       `json:"revoked,omitempty"`
}

// FlowerStats are the figures of a worker.
type FlowerStats struct {
	Total    map[string]int64   `json:"total"` // running attempts by task
	PID      int                `json:"pid"`   // process id of the node that answers; 0 for other nodes
	Clock    string             `json:"clock"`
	Uptime   int64              `json:"uptime"` // seconds, as far as is known
	Pool     FlowerPool         `json:"pool"`
	Broker   map[string]any     `json:"broker"`
	Prefetch int                `json:"prefetch_count"`
	Rusage   map[string]float64 `json:"rusage"`
}

// FlowerPool is the number of trials that a node runs at a time.
type FlowerPool struct {
	Implementation string `json:"implementation"`
	Concurrency    int    `json:"max-concurrency"`
	Processes      []int  `json:"processes"`
}

// FlowerQueue is the only queue of a node.
type FlowerQueue struct {
	Name       string `json:"name"`
	RoutingKey string `json:"routing_key"`
}

// FlowerActive is a trial that is running on a worker.
type FlowerActive struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Args      string   `json:"args"`
	Kwargs    string   `json:"kwargs"`
	Type      string   `json:"type"`
	Hostname  string   `json:"hostname"`
	TimeStart *float64 `json:"time_start"`
}
