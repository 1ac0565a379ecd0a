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
	// logSegments is the number of segments in which output is counted. After each, Logs checks
	// whether one node uses the room of others.
	logSegments = 64
	// fullPercent is the percentage of the room above which output of a node that uses more than
	// half of it is removed.
	fullPercent = 90
)

// logUsage counts how much of the log stream each node uses. In a full stream the oldest output is
// removed, so one node that prints without end would displace the output of all others. Therefore
// the output of a node that uses more than half of the room is removed first. What was stored
// before this start counts for no node.
type logUsage struct {
	mu       sync.Mutex
	segments []logSegment // oldest first
	// removedUpTo is, for each node, the sequence below which its output was removed before older
	// output of others; nil until loaded.
	removedUpTo map[grid.NodeID]uint64
}

// logSegment is some consecutive output.
type logSegment struct {
	first uint64 // sequence
	total int64
	bytes map[grid.NodeID]int64
}

// add counts a message. It reports whether a segment has become full, so that makeRoom is due.
func (s *logUsage) add(node grid.NodeID, seq uint64, bytes, limit int64) (full bool) {
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

// excess returns the node that uses more than half of a full stream, and the sequence up to which
// to remove its output: as much as two segments hold. The node is empty if nothing is to be
// removed.
func (s *logUsage) excess(first uint64, stored, limit int64) (node grid.NodeID, upTo uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.segments) > 1 && s.segments[1].first <= first {
		s.segments = s.segments[1:]
	}
	if stored < limit/100*fullPercent {
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

// makeRoom removes the oldest output of a node that uses more than half of a full stream.
func (l *Logs) makeRoom(ctx context.Context) error {
	info, err := l.store.streamInfo(ctx, logStream)
	if err != nil {
		return err
	}
	node, upTo := l.usage.excess(info.State.FirstSeq, int64(info.State.Bytes), l.store.limits.LogBytes)
	if node == "" {
		return nil
	}
	if err := l.loadRemovedUpTo(ctx); err != nil {
		return err
	}
	// The removal is recorded before it happens: readers report what is missing.
	data, err := json.Marshal(storedReply{Seq: upTo})
	if err != nil {
		return err
	}
	if _, err := l.store.publish(ctx, &nats.Msg{Subject: cutSubject(node), Data: data}); err != nil {
		return err
	}
	l.usage.mu.Lock()
	l.usage.removedUpTo[node] = max(upTo, l.usage.removedUpTo[node])
	l.usage.mu.Unlock()
	ctx, stop := l.store.withTimeout(ctx)
	defer stop()
	purge := []js.StreamPurgeOpt{js.WithPurgeSubject(logSubjectsOf(node)), js.WithPurgeSequence(upTo)}
	if err := l.store.streams[logStream].Purge(ctx, purge...); err != nil {
		return l.store.explain(ctx, "remove the oldest output", err)
	}
	return nil
}

// loadRemovedUpTo loads what was removed before this start.
func (l *Logs) loadRemovedUpTo(ctx context.Context) error {
	s := &l.usage
	s.mu.Lock()
	loaded := s.removedUpTo != nil
	s.mu.Unlock()
	if loaded {
		return nil
	}
	all := map[grid.NodeID]uint64{}
	ctx, stop := l.store.withTimeout(ctx)
	defer stop()
	for next, more := uint64(1), true; more; {
		more = false
		request := pageRequest{Seq: next, Batch: listPage, Subjects: cutSubjects}
		err := l.store.page(ctx, recordStream, request, func(m *nats.Msg, seq uint64) {
			var at storedReply
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
	if s.removedUpTo == nil {
		s.removedUpTo = all
	}
	return nil
}

// LogBounds says which output is still stored.
type LogBounds struct {
	first       uint64
	removedUpTo map[grid.NodeID]uint64
}

// First returns the sequence from which on all output of a node is stored; older output was
// removed.
func (k *LogBounds) First(node grid.NodeID) uint64 { return max(k.first, k.removedUpTo[node]) }

// Bounds returns which output is still stored.
func (l *Logs) Bounds(ctx context.Context) (LogBounds, error) {
	info, err := l.store.streamInfo(ctx, logStream)
	if err == nil {
		err = l.loadRemovedUpTo(ctx)
	}
	if err != nil {
		return LogBounds{}, err
	}
	l.usage.mu.Lock()
	defer l.usage.mu.Unlock()
	return LogBounds{first: info.State.FirstSeq, removedUpTo: maps.Clone(l.usage.removedUpTo)}, nil
}
