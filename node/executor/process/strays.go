package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/durable"
	"mlfnode/node/processid"
	"mlfnode/node/procfs"
)

// strays records the live processes of attempts whose environment lacks the token: daemons that
// were started with an empty one. If this process is killed their parents change, and Reap could
// not tell them from others without this record.
type strays struct {
	file  string // empty: nothing is recorded
	token string // MLF_TOKEN=…

	mu      sync.Mutex
	scanned time.Time // when processes were last scanned
	known   []processid.ID
}

// record writes the processes in live that do not show the token to the file, if they have changed.
// It leaves out those of other users, which Reap could not kill.
func (s *strays) record(live []procfs.Stat) error {
	if s.file == "" {
		return nil
	}
	var found []processid.ID
	for _, p := range live {
		if procfs.MatchEnviron(p.PID, s.token) == procfs.EnvironWith || unix.Kill(p.PID, 0) == unix.EPERM {
			continue
		}
		if id, ok := processid.Of(p.PID); ok && id.Start == p.Start { // else it has ended and its id was reused
			found = append(found, id)
		}
	}
	slices.SortFunc(found, func(a, b processid.ID) int { return a.PID - b.PID })
	if slices.Equal(found, s.known) {
		return nil
	}
	b, err := json.Marshal(found)
	if err != nil {
		return fmt.Errorf("encode strays: %w", err)
	}
	if err := durable.ReplaceFile(s.file, b, 0o600); err != nil {
		return fmt.Errorf("record strays: %w", err)
	}
	s.known = found
	return nil
}

// readStrays reads the record of a dead agent. A file that can't be parsed was not written
// completely, and names nothing.
func readStrays(file string) (all []processid.ID) {
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

// removeStrays removes the record, whose processes are gone.
func removeStrays(file string) error {
	if file == "" {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove recorded strays: %w", err)
	}
	return nil
}
