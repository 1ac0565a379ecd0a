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
)

// runs makes run names that are unique among all runs of the cluster: node, incarnation of its worker, number.
type runs struct {
	prefix string
	next   *atomic.Int64
}

// newRuns counts the incarnation up in the file, synced before any run uses it.
func newRuns(node grid.NodeID, file string) (runs, error) {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return runs{}, fmt.Errorf("read incarnation: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(old)), 36, 64)
	if err != nil && len(old) > 0 {
		n = time.Now().Unix() // a damaged file: higher than any count, and so is what follows
	}
	incarnation := strconv.FormatInt(n+1, 36)
	if err := writeSynced(file, incarnation); err != nil {
		return runs{}, fmt.Errorf("write incarnation: %w", err)
	}
	return runs{prefix: string(node) + "." + incarnation + ".", next: new(atomic.Int64)}, nil
}

func (r runs) name() string { return r.prefix + strconv.FormatInt(r.next.Add(1), 36) }

// writeSynced replaces a small file so that a crash leaves the old or the new content.
func writeSynced(file, content string) error {
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
