package jetstream

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
)

const (
	// reserved is which fraction of a part of the store that takes nothing more when it is full is divided among the nodes, so that one
	// that reports without end does not keep the others from reporting. A sixteenth of it is kept for what this process reports itself.
	reserved = 10
	// leftTimes is how many times as much as is left for the others a node may have stored of the reserve: one node on its own stores 3/4
	// of it, and two store 3/7 each, however many nodes are connected that store nothing. As long as there is room, each connected node may
	// also store an equal part of the reserve.
	leftTimes = 3
	// fillInterval is how often it is looked how full a nearly full part is, and overTime for how long a refused node counts as one
	// that waits: it asks again twice a second.
	fillInterval = time.Second
	overTime     = 10 * time.Second
)

// shares bound what single nodes store in a part of the store when it is nearly full.
type shares struct {
	store   *Store
	what    string // for people
	setting string
	limit   int64
	stored  func(ctx context.Context) (int64, error) // asks the server for the bytes in the part
	asking  chan struct{}                            // holds a token while somebody asks

	mu     sync.Mutex
	bytes  int64 // at least what is stored: what was seen last, and all that came since
	added  int64 // all that came
	looked time.Time
	used   map[grid.NodeID]int64     // of the reserve
	over   map[grid.NodeID]time.Time // when a node was refused last
}

func newShares(s *Store, stream, what, setting string, limit int64) *shares {
	return &shares{
		store: s, what: what, setting: setting, limit: limit, bytes: limit, // nobody has looked
		asking: make(chan struct{}, 1), used: map[grid.NodeID]int64{}, over: map[grid.NodeID]time.Time{},
		stored: func(ctx context.Context) (int64, error) {
			info, err := s.info(ctx, stream)
			if err != nil {
				return 0, err
			}
			return int64(info.State.Bytes), nil
		},
	}
}

// take has a node store so many bytes, or gives an error that is ErrFull.
func (s *shares) take(ctx context.Context, node grid.NodeID, bytes int64) error {
	if err := s.look(ctx, bytes); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += bytes
	s.added += bytes
	if s.bytes <= s.limit-s.limit/reserved {
		clear(s.used)
		clear(s.over)
		return nil
	}
	left := s.limit - s.bytes - s.limit/reserved/16
	share := max(leftTimes*left, s.limit/reserved/int64(s.store.nodes()))
	if left < 0 || s.used[node]+bytes > share {
		s.bytes -= bytes
		s.added -= bytes
		s.over[node] = time.Now()
		return &shareError{fullError{what: s.what, setting: s.setting, limit: s.limit}, node, share}
	}
	s.used[node] += bytes
	return nil
}

// look finds out how full the part is, when it may be nearly full with so many bytes more and that was not seen lately. One caller asks;
// the others go on with what was seen before, or wait when nothing was.
func (s *shares) look(ctx context.Context, bytes int64) error {
	due, seen := s.due(bytes)
	switch {
	case !due:
		return nil
	case seen:
		select {
		case s.asking <- struct{}{}:
		default:
			return nil
		}
	default:
		select {
		case s.asking <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-s.asking }()
	if due, _ := s.due(bytes); !due { // somebody has asked meanwhile
		return nil
	}
	s.mu.Lock()
	before := s.added
	s.mu.Unlock()
	stored, err := s.stored(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = time.Now()
	s.bytes = stored + s.added - before
	s.forget()
	return nil
}

// due reports whether it is to be looked how full the part is, and whether that was ever seen.
func (s *shares) due(bytes int64) (due, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes+bytes > s.limit-s.limit/reserved && time.Since(s.looked) >= fillInterval, !s.looked.IsZero()
}

// forget has what was removed count for nobody: no more of the reserve is used than is stored in it.
func (s *shares) forget() {
	used := int64(0)
	for _, bytes := range s.used {
		used += bytes
	}
	stored := max(0, s.bytes-(s.limit-s.limit/reserved))
	if used <= stored {
		return
	}
	for node, bytes := range s.used {
		s.used[node] = int64(float64(bytes) * float64(stored) / float64(used))
	}
}

// giveBack undoes take for what was not stored.
func (s *shares) giveBack(node grid.NodeID, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used := s.used[node]; used > bytes {
		s.used[node] = used - bytes
	} else {
		delete(s.used, node)
	}
}

// waiting lists the nodes that were refused lately.
func (s *shares) waiting() []grid.NodeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []grid.NodeID
	for node, at := range s.over {
		if time.Since(at) < overTime {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// nodes counts those that report to this store: those that are connected, and that of this process.
func (s *Store) nodes() int {
	if s.desk == nil {
		return 1
	}
	return 1 + len(s.desk.server.Connections())
}

// shareError says that a node has used its share of what is left of a part of the store.
type shareError struct {
	fullError
	node  grid.NodeID
	share int64
}

func (e *shareError) Error() string {
	return fmt.Sprintf("the store for %s is nearly full, and node %s has used its share of what is left (%s). Remove sweeps with `mlfnode remove SWEEP` or `mlfnode remove --older 30d`, or raise retention.%s in node.yaml",
		e.what, e.node, humanize.IBytes(uint64(e.share)), e.setting)
}

// PutArtifactsOf stores what a run of a trial has left on another node. It returns ErrFull also when the node has used its share of a
// store that is nearly full.
func (s *Store) PutArtifactsOf(ctx context.Context, node grid.NodeID, id grid.TrialID, run string, r io.Reader) error {
	counted := &sharedReader{ctx: ctx, r: r, shares: s.artifactShares, node: node}
	err := s.Artifacts.Put(ctx, id.ArtifactName(run), counted, nil)
	if err != nil {
		s.artifactShares.giveBack(node, counted.bytes)
	}
	return err
}

// sharedReader counts what a node sends as stored by it.
type sharedReader struct {
	ctx    context.Context
	r      io.Reader
	shares *shares
	node   grid.NodeID
	bytes  int64
}

// Read implements io.Reader.
func (c *sharedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		if err := c.shares.take(c.ctx, c.node, int64(n)); err != nil {
			return 0, err
		}
		c.bytes += int64(n)
	}
	return n, err
}
