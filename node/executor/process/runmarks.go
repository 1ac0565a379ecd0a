package process

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// Variables that every program gets, so that its processes can be told from others.
const (
	tokenVar = "MLF_TOKEN=" // identifies the node's state folder, over restarts of the agent
	runVar   = "MLF_RUN="   // identifies this attempt
)

// runMarks makes the variables that identify attempts, which are unique over restarts of the agent.
type runMarks struct {
	prefix string // runVar with what identifies this start
	count  atomic.Int64
}

func newRunMarks() *runMarks {
	start := strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(os.Getpid())
	return &runMarks{prefix: runVar + start + "-"}
}

// next returns MLF_RUN=… of another attempt.
func (m *runMarks) next() string { return m.prefix + strconv.FormatInt(m.count.Add(1), 36) }
