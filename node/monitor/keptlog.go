package monitor

import (
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	// keptLogBytes bounds the output that is kept, and keptLogFor says how long that is which
	// nobody searches.
	keptLogBytes = 32 << 20
	keptLogFor   = 5 * time.Second
)

// keptLog keeps the output of the ended attempt that was searched last: somebody who types a text
// searches it once for each letter. The zero value keeps none yet.
type keptLog struct {
	mu     sync.Mutex
	sweep  grid.SweepID
	run    string
	pieces []logPiece
	gone   *time.Timer
}

// logPiece is a chunk of an attempt with the position before it.
type logPiece struct {
	position
	jetstream.Chunk
}

// of gives all output of an attempt; nil when it is not kept.
func (k *keptLog) of(t *trialLog) []logPiece {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pieces == nil || k.sweep != t.sweep || k.run != t.run {
		return nil
	}
	k.gone.Reset(keptLogFor)
	return k.pieces
}

// keep keeps all output of an attempt instead of that of another one.
func (k *keptLog) keep(t *trialLog, pieces []logPiece) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone != nil {
		k.gone.Stop()
	}
	k.sweep, k.run, k.pieces = t.sweep, t.run, pieces
	k.gone = time.AfterFunc(keptLogFor, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.pieces) > 0 && &k.pieces[0] == &pieces[0] {
			k.pieces = nil
		}
	})
}

// recorder collects the output of an attempt that ended as it is read from its first byte on.
type recorder struct {
	pieces []logPiece
	bytes  int
	off    bool // it is not all, or too much
}

// messageBytes is about how large a message with output is, and largePart how large a part of one
// is that is kept in it instead of being copied. pieceBytes is about what a piece takes beside its
// data.
const (
	messageBytes = 512 << 10
	largePart    = messageBytes / 4
	pieceBytes   = 128
)

func (r *recorder) add(p position, c *jetstream.Chunk) {
	if r.off {
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
	if r.pieces = append(r.pieces, piece); r.bytes > keptLogBytes {
		r.pieces, r.off = nil, true
	}
}
