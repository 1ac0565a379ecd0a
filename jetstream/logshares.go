package jetstream

import (
	"context"
	"encoding/json"
	"maps"
	"sync"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

const (
	// logSegments is into how many segments the output is divided to count what is whose: after each it is looked whether one node
	// has taken the room of others.
	logSegments = 64
	// fullLogs is which part of the output's room, in percent, is full when the oldest output of a node that has more than half of it goes.
	fullLogs = 90
)

// logShares count whose output is in the log stream. In a full stream the oldest output goes, and one node that prints without end
// would push out that of all others. So the output of a node that has more than half of the room makes room first. What was stored
// before this start is nobody's.
type logShares struct {
	mu       sync.Mutex
	segments []logSegment           // the oldest first
	cut      map[grid.NodeID]uint64 // up to which sequence output of nodes was removed before older output of others; nil at first
}

// logSegment is some output in a row.
type logSegment struct {
	first uint64 // sequence
	total int64
	bytes map[grid.NodeID]int64
}

// add counts a message. It reports whether a segment is full, so that it is to be looked whether there is room.
func (s *logShares) add(node grid.NodeID, seq uint64, bytes, limit int64) (full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.segments) - 1
	if last < 0 || s.segments[last].total >= limit/logSegments {
		full = last >= 0
		s.segments = append(s.segments, logSegment{first: seq, bytes: map[grid.NodeID]int64{}})
		last++
	}
	s.segments[last].total += bytes
	s.segments[last].bytes[node] += bytes
	return full
}

// excess gives the node that has more than half of a full stream, and up to which sequence its output is to go: as much as two segments
// have. Node is empty when nothing is to go before the oldest.
func (s *logShares) excess(first uint64, stored, limit int64) (node grid.NodeID, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.segments) > 1 && s.segments[1].first <= first {
		s.segments = s.segments[1:]
	}
	if stored < limit/100*fullLogs {
		return "", 0
	}
	has := map[grid.NodeID]int64{}
	for _, segment := range s.segments {
		for of, bytes := range segment.bytes {
			has[of] += bytes
		}
	}
	for of, bytes := range has {
		if bytes > limit/2 && len(has) > 1 {
			node = of
		}
	}
	if node == "" {
		return "", 0
	}
	gone := int64(0)
	for i := 0; i+1 < len(s.segments) && gone < 2*limit/logSegments; i++ {
		gone += s.segments[i].bytes[node]
		delete(s.segments[i].bytes, node)
		upTo = s.segments[i+1].first
	}
	return node, upTo
}

// makeRoom removes the oldest output of a node that has more than half of a full stream.
func (l *Logs) makeRoom(ctx context.Context) error {
	info, err := l.store.info(ctx, logStream)
	if err != nil {
		return err
	}
	node, upTo := l.shares.excess(info.State.FirstSeq, int64(info.State.Bytes), l.store.limits.LogBytes)
	if node == "" {
		return nil
	}
	if err := l.loadCut(ctx); err != nil {
		return err
	}
	// It is known before it is so, and kept: readers are to be told what is gone.
	data, err := json.Marshal(storedAt{Seq: upTo})
	if err != nil {
		return err
	}
	if _, err := l.store.publish(ctx, &nats.Msg{Subject: cutSubject(node), Data: data}); err != nil {
		return err
	}
	l.shares.mu.Lock()
	l.shares.cut[node] = max(upTo, l.shares.cut[node])
	l.shares.mu.Unlock()
	ctx, stop := l.store.limited(ctx)
	defer stop()
	if err := l.store.streams[logStream].Purge(ctx, js.WithPurgeSubject(logSubjectsOf(node)), js.WithPurgeSequence(upTo)); err != nil {
		return l.store.explain(ctx, "remove the oldest output", err)
	}
	return nil
}

// loadCut finds out what was removed before this start.
func (l *Logs) loadCut(ctx context.Context) error {
	s := &l.shares
	s.mu.Lock()
	loaded := s.cut != nil
	s.mu.Unlock()
	if loaded {
		return nil
	}
	all := map[grid.NodeID]uint64{}
	ctx, stop := l.store.limited(ctx)
	defer stop()
	for next, more := uint64(1), true; more; {
		more = false
		err := l.store.page(ctx, recordStream, pageRequest{Seq: next, Batch: presentPage, Subjects: cutSubjects}, func(m *nats.Msg, seq uint64) {
			var at storedAt
			if err := json.Unmarshal(m.Data, &at); err == nil {
				all[grid.NodeID(lastToken(m.Header.Get("Nats-Subject")))] = at.Seq
			}
			next, more = seq+1, true
		})
		if err != nil {
			return l.store.explain(ctx, "look for removed output", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut == nil {
		s.cut = all
	}
	return nil
}

// LogBounds says from where on output is still there.
type LogBounds struct {
	first uint64
	cut   map[grid.NodeID]uint64
}

// First gives the sequence from which on all that a node has stored is there; older output was removed.
func (k *LogBounds) First(node grid.NodeID) uint64 { return max(k.first, k.cut[node]) }

// Bounds finds out which output is still there.
func (l *Logs) Bounds(ctx context.Context) (LogBounds, error) {
	info, err := l.store.info(ctx, logStream)
	if err == nil {
		err = l.loadCut(ctx)
	}
	if err != nil {
		return LogBounds{}, err
	}
	l.shares.mu.Lock()
	defer l.shares.mu.Unlock()
	return LogBounds{first: info.State.FirstSeq, cut: maps.Clone(l.shares.cut)}, nil
}
