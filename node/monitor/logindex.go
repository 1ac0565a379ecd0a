package monitor

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	keptIndexes = 16
	maxMarks    = 4096
	logReaders  = 2   // concurrent requests that read output, so that a core is left for others
	logStreams  = 5   // streams are numbered from 1 to 4
	minGap      = 256 // messages of others after which a new reader is cheaper than skipping
)

// logIndexes locate the bytes of attempts in the stream of output. Without an index, each window of
// an attempt would be read from the first byte.
type logIndexes struct {
	readers semaphore
	timeout time.Duration // after which a search returns what it has found
	cache   logCache

	mu   sync.Mutex
	kept []*logIndex // the most recently used one last
}

// logIndex is the index of one attempt: the position before some of its messages. It grows as the
// attempt prints.
type logIndex struct {
	sweep grid.SweepID
	run   string

	mu    sync.Mutex
	next  uint64 // the first unread message
	end   position
	marks []logMark
	every int    // one of this many messages has a mark
	seen  int    // messages since the last mark
	last  uint64 // the last message that contains output of the attempt
	gaps  []logGap
}

// logGap is a range of messages without output of the attempt, between two that have some.
type logGap struct{ after, next uint64 }

// position is a place in the output of an attempt: the number of bytes before it, in each stream
// and in all.
type position struct {
	all  int64
	ends [logStreams]int64
}

type logMark struct {
	seq uint64
	position
}

// advance returns the part of a chunk that lies after the position, and moves the position to its
// end. A chunk may be stored twice, and what preceded it may have been removed.
func (p *position) advance(c *jetstream.Chunk) []byte {
	if int(c.Stream) >= logStreams || c.Offset < 0 || c.Offset > math.MaxInt64/2 {
		return nil // not from a node of this version
	}
	end := &p.ends[c.Stream]
	have := max(0, *end-c.Offset)
	if have >= int64(len(c.Data)) {
		return nil
	}
	data := c.Data[have:]
	p.all += max(0, c.Offset-*end) + int64(len(data))
	*end = c.Offset + int64(len(c.Data))
	return data
}

// of returns the offset in one stream, or in all streams for 0.
func (p *position) of(stream uint8) int64 {
	if stream == 0 {
		return p.all
	}
	return p.ends[stream]
}

// trialLog is the output of one attempt.
type trialLog struct {
	sweep  grid.SweepID
	index  int64
	number int
	run    string // empty if there is no attempt
	node   grid.NodeID
	ended  bool
	ref    grid.LogRef
	since  time.Time // before its first byte
}

func (t *trialLog) empty() bool { return t.run == "" || t.ended && t.ref.First == 0 }

// get returns the index of an attempt.
func (x *logIndexes) get(t *trialLog) *logIndex {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.kept, func(l *logIndex) bool { return l.sweep == t.sweep && l.run == t.run })
	var l *logIndex
	if i >= 0 {
		l = x.kept[i]
		x.kept = slices.Delete(x.kept, i, i+1)
	} else {
		l = &logIndex{sweep: t.sweep, run: t.run, every: 1}
	}
	x.kept = append(x.kept, l)
	if len(x.kept) > keptIndexes {
		x.kept = slices.Delete(x.kept, 0, 1)
	}
	return l
}

// extend reads the output that has been stored since the last call, and returns the position at its
// end.
func (l *logIndex) extend(ctx context.Context, logs *jetstream.Logs, t *trialLog) (position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.extendLocked(ctx, logs, t, func(uint64, position, *jetstream.Chunk) error { return nil })
	return l.end, err
}

func (l *logIndex) extendLocked(ctx context.Context, logs *jetstream.Logs, t *trialLog, piece pieceFunc) error {
	if t.empty() || t.ended && l.next > t.ref.Last {
		return nil
	}
	enough := false
	err := t.read(ctx, logs, logMark{seq: l.next, position: l.end},
		func(seq uint64, before position, c *jetstream.Chunk) error {
			if seq != l.last {
				if l.last > 0 && seq-l.last > minGap && len(l.gaps) < maxMarks {
					l.gaps = append(l.gaps, logGap{l.last, seq})
				}
				l.mark(seq, before)
				l.last = seq
			}
			err := piece(seq, before, c)
			enough = err != nil
			return err
		}, func(seq uint64, end position) { l.next, l.end = seq+1, end })
	if err == nil && !enough && t.ended {
		l.next = t.ref.Last + 1
	}
	return err
}

// walk calls piece as read does, starting at the last mark that is not after an offset. It skips
// the output of other attempts where the index knows it, and extends the index by what it reads
// beyond: the walk after one that ctx has ended gets further.
func (l *logIndex) walk(
	ctx context.Context, logs *jetstream.Logs, t *trialLog, stream uint8, offset int64, piece pieceFunc,
) error {
	from := l.markBefore(stream, offset)
	l.mu.Lock()
	defer l.mu.Unlock()
	enough := false
	for !enough && from.seq < l.next && !t.empty() {
		known, next := *t, l.next
		known.ref.Last = min(l.last, l.next-1)
		if i := slices.IndexFunc(l.gaps, func(g logGap) bool { return g.after >= from.seq }); i >= 0 &&
			l.gaps[i].next <= l.next {
			known.ref.Last, next = l.gaps[i].after, l.gaps[i].next
		}
		behind := logMark{next, from.position}
		if known.ref.Last > 0 && known.ref.Last >= from.seq {
			err := known.read(ctx, logs, from, func(seq uint64, before position, c *jetstream.Chunk) error {
				err := piece(seq, before, c)
				enough = err != nil
				return err
			}, func(_ uint64, end position) { behind.position = end })
			if err != nil {
				return err
			}
		}
		from = behind
	}
	if enough {
		return nil
	}
	return l.extendLocked(ctx, logs, t, piece)
}

func (l *logIndex) mark(seq uint64, before position) {
	if l.seen++; l.seen < l.every && len(l.marks) > 0 {
		return
	}
	l.seen = 0
	if l.marks = append(l.marks, logMark{seq, before}); len(l.marks) < maxMarks {
		return
	}
	l.every *= 2
	for i := range len(l.marks) / 2 {
		l.marks[i] = l.marks[2*i]
	}
	l.marks = l.marks[:len(l.marks)/2]
}

// markBefore returns the last mark that is not after an offset.
func (l *logIndex) markBefore(stream uint8, offset int64) logMark {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, found := slices.BinarySearchFunc(l.marks, offset, func(m logMark, offset int64) int {
		return cmp.Compare(m.of(stream), offset)
	})
	switch {
	case found:
		return l.marks[at]
	case at == 0:
		return logMark{}
	}
	return l.marks[at-1]
}

// pieceFunc is called with a chunk of an attempt, its message and the position before it. errEnough
// ends the reading.
type pieceFunc func(seq uint64, before position, c *jetstream.Chunk) error

// read calls piece for the chunks of the attempt in order, each without the part that has already
// been passed, and with the position before it. After each message it calls done, if not nil, with
// the position after it. errEnough from piece ends the reading.
func (t *trialLog) read(
	ctx context.Context, logs *jetstream.Logs, from logMark, piece pieceFunc, done func(uint64, position),
) error {
	if t.empty() {
		return nil
	}
	rng := jetstream.LogRange{First: max(from.seq, t.ref.First), Last: t.ref.Last}
	if rng.First == 0 {
		rng.Since = t.since
	}
	p := from.position
	err := logs.Read(ctx, t.sweep, rng, func(seq uint64, chunks []jetstream.Chunk) error {
		for i := range chunks {
			c := &chunks[i]
			if c.Index != t.index || c.Run != t.run {
				continue
			}
			behind := p
			data := behind.advance(c)
			if data == nil {
				continue
			}
			p = behind
			p.all, p.ends[c.Stream] = p.all-int64(len(data)), p.ends[c.Stream]-int64(len(data))
			c.Data = data
			if err := piece(seq, p, c); err != nil {
				return err
			}
			p = behind
		}
		if done != nil {
			done(seq, p)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
