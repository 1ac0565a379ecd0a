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
	// reserveFraction is the part of a stream's limit, a tenth, that is divided among the nodes, so
	// that one that reports without end does not keep the others from reporting. A sixteenth of the
	// reserve is kept for what this process reports itself.
	reserveFraction = 10
	// maxShareOfRest is how many times the remaining room a node may have stored of the reserve: a
	// single node stores 3/4 of it, and two store 3/7 each, however many idle nodes are connected.
	// As long as there is room, each connected node may also store an equal part of the reserve.
	maxShareOfRest = 3
	// refreshInterval is how often the size of a nearly full stream is requested, and refusedTime
	// how long a refused node counts as waiting: it retries twice a second.
	refreshInterval = time.Second
	refusedTime     = 10 * time.Second
)

// quota bounds what single nodes store in a stream that is nearly full and accepts nothing more
// when it is full.
type quota struct {
	store       *Store
	what        string // for people
	setting     string
	limit       int64
	storedBytes func(ctx context.Context) (int64, error) // requests the size of the stream
	refreshing  chan struct{}                            // holds a token while a caller requests the size

	mu        sync.Mutex
	bytes     int64 // upper bound of the size: the last known size and everything since
	added     int64 // everything that was reserved
	refreshed time.Time
	used      map[grid.NodeID]int64     // of the reserve
	refused   map[grid.NodeID]time.Time // when a node was last refused
}

func newQuota(s *Store, stream, what, setting string, limit int64) *quota {
	return &quota{
		store: s, what: what, setting: setting, limit: limit, bytes: limit, // unknown yet
		refreshing: make(chan struct{}, 1), used: map[grid.NodeID]int64{}, refused: map[grid.NodeID]time.Time{},
		storedBytes: func(ctx context.Context) (int64, error) {
			info, err := s.streamInfo(ctx, stream)
			if err != nil {
				return 0, err
			}
			return int64(info.State.Bytes), nil
		},
	}
}

// reserve lets a node store a number of bytes, or returns an error that is ErrFull.
func (s *quota) reserve(ctx context.Context, node grid.NodeID, bytes int64) error {
	if err := s.refresh(ctx, bytes); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += bytes
	s.added += bytes
	if s.bytes <= s.limit-s.limit/reserveFraction {
		clear(s.used)
		clear(s.refused)
		return nil
	}
	nodes := 1 // that of this process, and the connected ones
	if calls := s.store.callServer; calls != nil {
		nodes += len(calls.server.Connections())
	}
	left := s.limit - s.bytes - s.limit/reserveFraction/16
	share := max(maxShareOfRest*left, s.limit/reserveFraction/int64(nodes))
	if left < 0 || s.used[node]+bytes > share {
		s.bytes -= bytes
		s.added -= bytes
		s.refused[node] = time.Now()
		return &quotaError{fullError{what: s.what, setting: s.setting, limit: s.limit}, node, share}
	}
	s.used[node] += bytes
	return nil
}

// refresh requests the size of the stream if it may be nearly full with bytes more, and was not
// requested recently. One caller requests it; the others continue with the last known size, or wait
// if there is none.
func (s *quota) refresh(ctx context.Context, bytes int64) error {
	due, seen := s.due(bytes)
	switch {
	case !due:
		return nil
	case seen:
		select {
		case s.refreshing <- struct{}{}:
		default:
			return nil
		}
	default:
		select {
		case s.refreshing <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer func() { <-s.refreshing }()
	if due, _ := s.due(bytes); !due { // another caller has requested it in the meantime
		return nil
	}
	s.mu.Lock()
	before := s.added
	s.mu.Unlock()
	stored, err := s.storedBytes(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refreshed = time.Now()
	s.bytes = stored + s.added - before
	s.scaleUsed()
	return nil
}

// due reports whether the size is to be requested, and whether it is known.
func (s *quota) due(bytes int64) (due, seen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	nearlyFull := s.bytes+bytes > s.limit-s.limit/reserveFraction
	return nearlyFull && time.Since(s.refreshed) >= refreshInterval, !s.refreshed.IsZero()
}

// scaleUsed discounts what was removed from the stream: the nodes together use no more of the
// reserve than is stored in it.
func (s *quota) scaleUsed() {
	used := int64(0)
	for _, bytes := range s.used {
		used += bytes
	}
	stored := max(0, s.bytes-(s.limit-s.limit/reserveFraction))
	if used <= stored {
		return
	}
	for node, bytes := range s.used {
		s.used[node] = int64(float64(bytes) * float64(stored) / float64(used))
	}
}

// release undoes reserve for what was not stored.
func (s *quota) release(node grid.NodeID, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used := s.used[node]; used > bytes {
		s.used[node] = used - bytes
	} else {
		delete(s.used, node)
	}
}

// refusedNodes returns the nodes that were refused recently.
func (s *quota) refusedNodes() []grid.NodeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []grid.NodeID
	for node, at := range s.refused {
		if time.Since(at) < refusedTime {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// quotaError says that a node has used its share of the remaining room.
type quotaError struct {
	fullError
	node  grid.NodeID
	share int64
}

func (e *quotaError) Error() string {
	return fmt.Sprintf("the store for %s is nearly full, and node %s has used its share of what is left (%s). "+
		"Remove sweeps with `mlfnode remove SWEEP` or `mlfnode remove --older 30d`, or raise retention.%s in node.yaml",
		e.what, e.node, humanize.IBytes(uint64(e.share)), e.setting)
}

// PutArtifactsOf stores the artifacts of a run on another node. It also returns ErrFull if the node
// has used its share of a nearly full store.
func (s *Store) PutArtifactsOf(ctx context.Context, node grid.NodeID, id grid.TrialID, run string, r io.Reader) error {
	counted := &quotaReader{ctx: ctx, r: r, quota: s.Artifacts.quota, node: node}
	err := s.Artifacts.Put(ctx, id.ArtifactName(run), counted)
	if err != nil {
		s.Artifacts.quota.release(node, counted.bytes)
	}
	return err
}

// quotaReader reserves what it reads for a node.
type quotaReader struct {
	ctx   context.Context
	r     io.Reader
	quota *quota
	node  grid.NodeID
	bytes int64
}

// Read implements io.Reader.
func (c *quotaReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		if err := c.quota.reserve(c.ctx, c.node, int64(n)); err != nil {
			return 0, err
		}
		c.bytes += int64(n)
	}
	return n, err
}
