package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// runNames makes run names that are unique among all runs of the cluster: node, incarnation of its
// worker, number.
type runNames struct {
	prefix string
	count  *atomic.Int64
}

// newRunNames increments the incarnation in the file, which is synced before any run uses it.
func newRunNames(node grid.NodeID, file string) (runNames, error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return runNames{}, fmt.Errorf("read incarnation: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(old)), 36, 64)
	if err != nil && len(old) > 0 {
		n = time.Now().Unix() // a damaged file: higher than any count, and so are those that follow
	}
	incarnation := strconv.FormatInt(n+1, 36)
	if err := durable.WriteFile(file, []byte(incarnation), 0o600); err != nil {
		return runNames{}, fmt.Errorf("write incarnation: %w", err)
	}
	return runNames{prefix: string(node) + "." + incarnation + ".", count: new(atomic.Int64)}, nil
}

func (r runNames) next() string { return r.prefix + strconv.FormatInt(r.count.Add(1), 36) }
