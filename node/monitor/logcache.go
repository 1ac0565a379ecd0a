package monitor

import (
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	// logCacheBytes limits the size of the cached output, and logCacheTTL is how long output is
	// cached after the last search.
	logCacheBytes = 32 << 20
	logCacheTTL   = 5 * time.Second
)

// logCache keeps the output of the ended attempt that was searched last: a search as the user types
// reads the output once for each letter. The zero value is an empty cache.
type logCache struct {
	mu     sync.Mutex
	sweep  grid.SweepID
	run    string
	pieces []logPiece
	expiry *time.Timer
}

// logPiece is a chunk of an attempt with the position before it.
type logPiece struct {
	position
	jetstream.Chunk
}

// get returns all output of an attempt, or nil if it is not cached.
func (k *logCache) get(t *trialLog) []logPiece {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pieces == nil || k.sweep != t.sweep || k.run != t.run {
		return nil
	}
	k.expiry.Reset(logCacheTTL)
	return k.pieces
}

// set replaces the cached output by that of an attempt.
func (k *logCache) set(t *trialLog, pieces []logPiece) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.sweep, k.run, k.pieces = t.sweep, t.run, pieces
	k.expiry = time.AfterFunc(logCacheTTL, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.pieces) > 0 && &k.pieces[0] == &pieces[0] {
			k.pieces = nil
		}
	})
}

// recorder collects the output of an ended attempt while it is read from the first byte.
type recorder struct {
	pieces     []logPiece
	bytes      int
	incomplete bool // the output is not complete, or too large
}

// messageBytes is the approximate size of a message with output, and largePart that of a part of a
// message that is kept in the message instead of being copied. pieceBytes is the approximate
// overhead of a piece.
const (
	messageBytes = 512 << 10
	largePart    = messageBytes / 4
	pieceBytes   = 128
)

func (r *recorder) add(p position, c *jetstream.Chunk) {
	if r.incomplete {
		return
	}
	piece := logPiece{p, *c}
	r.bytes += pieceBytes
	if len(c.Data) < largePart {
		piece.Data = slices.Clone(c.Data)
		r.bytes += len(c.Data)
	} else {
		r.bytes += max(len(c.Data), messageBytes)
	}
	if r.pieces = append(r.pieces, piece); r.bytes > logCacheBytes {
		r.pieces, r.incomplete = nil, true
	}
}
