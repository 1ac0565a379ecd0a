package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/durable"
	"mlfnode/node/poll"
	"mlfnode/projects"
)

// checkpoints are the folders on this node in which trials save their state, one for each trial
// whose task declares a checkpoint:
//
//	checkpoints/SWEEP/INDEX/live    $MLF_CHECKPOINT, the same for all attempts on this node
//	checkpoints/SWEEP/INDEX/state   which attempt had it last, and what is in it
//
// They are not in the spools, which are cleaned after each attempt.
type checkpoints struct {
	dir       string
	cfg       *Config
	sweeps    *sweepSet
	snapshots *snapshotUploads

	synced      atomic.Bool // all sweep records are known
	cleanupSoon poll.Signal // some folders may be removed

	mu   sync.Mutex
	used map[grid.TrialID]chan struct{} // folders that an attempt has; closed at its end
}

func newCheckpoints(cfg *Config, sweeps *sweepSet, snapshots *snapshotUploads) *checkpoints {
	return &checkpoints{
		cfg: cfg, dir: filepath.Join(cfg.Dir, "checkpoints"), sweeps: sweeps, snapshots: snapshots,
		cleanupSoon: poll.NewSignal(), used: map[grid.TrialID]chan struct{}{},
	}
}

// checkpointFolder is the checkpoint folder of a trial while an attempt has it.
type checkpointFolder struct {
	owner     *checkpoints
	trial     grid.TrialID
	dir       string
	state     folderState
	lastFiles []checkpoint.File // as of the last snapshot, with the hashes
	once      sync.Once

	neverQuiet bool // its program never paused writing; owned by the goroutine that stores it while it runs
}

// folderState is what the node knows of a folder, for the next attempt.
type folderState struct {
	Attempt int  `json:"attempt"`           // the last attempt that had the folder
	Base    int  `json:"base,omitempty"`    // the newest stored snapshot from which its content descends; 0 for none
	Resumed int  `json:"resumed,omitempty"` // the snapshot that it held unchanged when that attempt began; 0 for none
	Resume  bool `json:"resume,omitempty"`  // it was not empty then
	Stored  bool `json:"stored,omitempty"`  // that attempt has ended, and the content is the snapshot Base
}

// resumePoint is what a lease says of the state from which its trial continues.
type resumePoint struct {
	snapshot int // number of the newest stored one, 0 for none
	bad      int // the folders of attempts up to this one can't be read
}

func (c *checkpoints) folder(id grid.TrialID) string {
	return filepath.Join(c.dir, string(id.Sweep), strconv.FormatInt(id.Index, 10))
}

func (s *checkpointFolder) liveDir() string { return filepath.Join(s.dir, "live") }

// copyDir is the folder's copy, while one is being stored.
func (s *checkpointFolder) copyDir() string { return filepath.Join(s.dir, "copy") }

// acquire gives the folder of a trial to an attempt. It waits for the end of another attempt that
// has it: two never write to one folder.
func (c *checkpoints) acquire(ctx context.Context, id grid.TrialID) (*checkpointFolder, error) {
	for {
		c.mu.Lock()
		ended := c.used[id]
		if ended == nil {
			c.used[id] = make(chan struct{})
			c.mu.Unlock()
			s := &checkpointFolder{owner: c, trial: id, dir: c.folder(id)}
			s.state = readState(s.dir)
			return s, nil
		}
		c.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// release lets the next attempt have the folder.
func (s *checkpointFolder) release() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		s.owner.mu.Lock()
		defer s.owner.mu.Unlock()
		close(s.owner.used[s.trial])
		delete(s.owner.used, s.trial)
	})
}

// readState returns the zero state, which names no attempt, for a folder that does not exist or
// can't be read.
func readState(dir string) (state folderState) {
	b, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil || json.Unmarshal(b, &state) != nil {
		return folderState{}
	}
	return state
}

func (s *checkpointFolder) writeState(state folderState) error {
	b, err := json.Marshal(state)
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.dir, "state"), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("the folder for checkpoints could not be prepared: %w", err)
	}
	s.state = state
	return nil
}

// prepare makes the folder ready for an attempt. A folder that holds at least what its resume point
// says is used as it is; otherwise fetch replaces it by the snapshot, or it is emptied where there
// is none.
func (s *checkpointFolder) prepare(attempt int, from resumePoint, fetch func() error) error {
	state := s.state
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("the folder for checkpoints could not be created: %w", err)
	}
	if state.Attempt <= from.bad || state.Base < from.snapshot {
		state.Base, state.Stored = from.snapshot, true
		var err error
		if from.snapshot > 0 {
			err = fetch()
		} else {
			err = projects.RemoveTree(s.liveDir())
		}
		if err != nil {
			return err
		}
	}
	resumed := 0
	if state.Stored {
		resumed = state.Base
	}
	if err := os.MkdirAll(s.liveDir(), 0o700); err != nil {
		return fmt.Errorf("the folder for checkpoints could not be created: %w", err)
	}
	return s.writeState(folderState{
		Attempt: attempt, Base: state.Base, Resumed: resumed, Resume: !isEmpty(s.liveDir()),
	})
}

// remove removes the folder of a trial that needs it no longer, unless an attempt has it.
func (c *checkpoints) remove(id grid.TrialID) error {
	c.mu.Lock()
	if c.used[id] != nil {
		c.mu.Unlock()
		return nil
	}
	s := &checkpointFolder{owner: c, trial: id, dir: c.folder(id)}
	c.used[id] = make(chan struct{})
	c.mu.Unlock()
	defer s.release()
	err := projects.RemoveTree(s.dir)
	_ = os.Remove(filepath.Dir(s.dir)) // fails while the sweep has other folders
	return err
}

const (
	// checkpointCleanupInterval is how often unneeded folders are removed, in addition to when a
	// record says that some may go.
	checkpointCleanupInterval = time.Hour
	// storedRetention is how long a folder stays that no attempt has and that is stored on the
	// master: the trial may have moved to another node.
	storedRetention = time.Hour
	// endedRetention is how long a folder that is stored nowhere else stays after the end of its
	// sweep: its trial may be retried.
	endedRetention = 24 * time.Hour
)

// removeUnneeded removes the folders that no trial needs any more. record returns the record of a
// sweep, nil for one that was removed.
func (c *checkpoints) removeUnneeded(now time.Time, record func(grid.SweepID) *grid.Sweep) error {
	found, err := filepath.Glob(filepath.Join(c.dir, "*", "*"))
	for _, dir := range found {
		index, e := strconv.ParseInt(filepath.Base(dir), 10, 64)
		if e != nil {
			continue
		}
		id := grid.TrialID{Sweep: grid.SweepID(filepath.Base(filepath.Dir(dir))), Index: index}
		needed := false
		if r := record(id.Sweep); r != nil {
			needed = r.State != grid.SweepFinished && r.State != grid.SweepCancelled
			if !readState(dir).Stored {
				needed = needed || r.Save || now.Sub(r.Ended) <= endedRetention
			} else if info, statErr := os.Stat(filepath.Join(dir, "state")); statErr == nil {
				needed = needed && now.Sub(info.ModTime()) <= storedRetention
			}
		}
		if !needed {
			err = errors.Join(err, c.remove(id))
		}
	}
	return err
}

// run removes unneeded folders from time to time, and when some may go, until ctx ends.
func (c *checkpoints) run(ctx context.Context) {
	tick := time.NewTicker(checkpointCleanupInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.requestCleanup()
			continue
		case <-c.cleanupSoon:
		}
		if err := c.removeUnneeded(time.Now(), c.sweeps.recordOf); err != nil {
			c.cfg.Logger.Warn("unneeded checkpoints could not be removed", "err", err)
		}
	}
}

// requestCleanup makes run remove unneeded folders, unless sweeps may exist whose records are not
// known yet.
func (c *checkpoints) requestCleanup() {
	if c.synced.Load() {
		c.cleanupSoon.Set()
	}
}

// acquireFor gives the attempt the folder of its trial, if its task declares a checkpoint.
func (c *checkpoints) acquireFor(ctx context.Context, a *attempt) error {
	if a.task.Checkpoint == nil {
		return nil
	}
	s, err := c.acquire(ctx, a.id)
	if err != nil {
		return err
	}
	if err := s.prepare(a.number, a.resumePoint, func() error { return c.snapshots.fetch(ctx, a, s) }); err != nil {
		s.release()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.checkpoint = s
	return nil
}

// adoptFor gives a running attempt of an earlier agent the folder of its trial, which nobody else
// has yet.
func (c *checkpoints) adoptFor(a *attempt) *checkpointFolder {
	if a.task.Checkpoint == nil {
		return nil
	}
	c.mu.Lock()
	taken := c.used[a.id] != nil // by another attempt of the trial, which is running too
	c.mu.Unlock()
	if taken {
		return nil
	}
	s, _ := c.acquire(context.Background(), a.id) // fails only when its context ends
	return s
}
