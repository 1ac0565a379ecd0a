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

	"mlfnode/node/processid"
)

// strays are the live processes of attempts whose environment does not have the token: daemons that
// were started with an empty one. When this process is killed their parents change, and Reap could
// not tell them from others without the file that they are recorded in.
type strays struct {
	file  string // empty: nothing is recorded
	token string // MLF_TOKEN=…

	mu      sync.Mutex
	scanned time.Time // when they were last looked for
	known   []processid.ID
}

// record writes down those of the processes that do not show the token, if they have changed. Those
// of other users, which Reap could not end, are left out.
func (s *strays) record(live []stat) error {
	if s.file == "" {
		return nil
	}
	var found []processid.ID
	for _, p := range live {
		if matchEnviron(p.pid, s.token) == environWith || unix.Kill(p.pid, 0) == unix.EPERM {
			continue
		}
		if id, ok := processid.Of(p.pid); ok && id.Start == p.start { // else it has ended, and its number is another's
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
	if err := os.WriteFile(s.file+".new", b, 0o600); err != nil {
		return fmt.Errorf("record strays: %w", err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		return fmt.Errorf("record strays: %w", err)
	}
	s.known = found
	return nil
}

// readStrays reads what a dead agent has recorded. What can't be read was not recorded whole, and
// names nothing.
func readStrays(file string) (all []processid.ID) {
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

// removeStrays removes the file, whose processes are gone.
func removeStrays(file string) error {
	if file == "" {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove recorded strays: %w", err)
	}
	return nil
}
