package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

// The streams of output.
const (
	streamOut   = 1
	streamErr   = 2
	streamSetup = 3 // of the setup step that ran for this attempt
)

const (
	// tailInterval is how often the output of running attempts is scanned while some is written,
	// idleTailInterval how often when none has been for idleTailAfter.
	tailInterval     = 40 * time.Millisecond
	idleTailInterval = 250 * time.Millisecond
	idleTailAfter    = 3 * time.Second
	// announceAfter is how long an attempt must run before a Started event reports it.
	announceAfter = 100 * time.Millisecond
	// metricsInterval is how often the metrics of running attempts are read, metricsRepeatInterval
	// how often unchanged ones are sent.
	metricsInterval       = 5 * time.Second
	metricsRepeatInterval = time.Minute
	// maxPiece is how much output is read at one time.
	maxPiece = 128 << 10
)

// outputSource is a file that an attempt writes to, and how much of it has been sent.
type outputSource struct {
	file      *os.File
	stream    uint8
	sent      int64
	truncated int64 // how much of what was sent is no longer in the file

	bounded bool // only what is before end is output
	end     int64
}

// size returns how much the program has written. A program that writes straight into the file, as
// under a shim of an earlier version, can truncate it: what was sent before stays sent, and what
// follows is read from the file's start.
func (s *outputSource) size() (int64, error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	if s.bounded {
		size = min(size, s.end)
	}
	if size < s.sent-s.truncated {
		s.truncated = s.sent
	}
	return s.truncated + size, nil
}

// attemptOutput is the output of an attempt, and how much of it has been sent. It is guarded by
// attempt.mu.
type attemptOutput struct {
	sources []*outputSource
	cut     *cutOutput  // nil when nothing was cut
	ref     grid.LogRef // owned by the outbox
	closed  bool        // nothing may be read from the spool any more
}

// metricReport is what has been reported of the metrics of a running attempt. It is guarded by
// attempt.mu.
type metricReport struct {
	reader    *metricReader // nil before metrics were first read
	readAt    time.Time     // when they were last read
	values    grid.Metric
	changedAt time.Time // when they became these values
	sentAt    time.Time // when they were last sent
}

// outputTail sends the output of running attempts to the outbox, and their metrics to the master.
type outputTail struct {
	cfg    *Config
	outbox *outbox
	sweeps *sweepSet
	wake   poll.Signal // wakes run from its idling

	mu       sync.Mutex
	attempts map[*attempt]struct{}
	idle     bool // run scans rarely or not at all, and must be woken for the next attempt
}

// watch makes run send the attempt's output; unwatch ends that.
func (ot *outputTail) watch(a *attempt) {
	ot.mu.Lock()
	defer ot.mu.Unlock()
	ot.attempts[a] = struct{}{}
	if ot.idle {
		ot.idle = false
		ot.wake.Set()
	}
}

func (ot *outputTail) unwatch(a *attempt) {
	ot.mu.Lock()
	defer ot.mu.Unlock()
	delete(ot.attempts, a)
}

// nextInterval returns how long run waits before its next scan, 0 for until it is woken. Waking it
// costs a short trial much of its time, so it goes on scanning for a while when there is nothing
// new.
func (ot *outputTail) nextInterval(quiet bool) time.Duration {
	ot.mu.Lock()
	defer ot.mu.Unlock()
	ot.idle = quiet
	switch {
	case !quiet:
		return tailInterval
	case len(ot.attempts) == 0:
		return 0
	}
	return idleTailInterval
}

// count returns how many attempts run now.
func (ot *outputTail) count() int {
	ot.mu.Lock()
	defer ot.mu.Unlock()
	return len(ot.attempts)
}

func (ot *outputTail) watched() []*attempt {
	ot.mu.Lock()
	defer ot.mu.Unlock()
	return slices.Collect(maps.Keys(ot.attempts))
}

// run scans running attempts until ctx ends. It sleeps while none runs.
func (ot *outputTail) run(ctx context.Context) {
	interval := tailInterval
	tick := time.NewTicker(interval)
	defer tick.Stop()
	lastActivity := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ot.wake: // an attempt has started
			lastActivity = time.Now()
		case now := <-tick.C:
			for _, a := range ot.watched() {
				if ot.scanAttempt(ctx, a, now) {
					lastActivity = now
				}
			}
		}
		if next := ot.nextInterval(time.Since(lastActivity) > idleTailAfter); next != interval {
			interval = next
			tick.Stop()
			if next > 0 {
				tick.Reset(next)
			}
		}
	}
}

// scanAttempt reports an attempt's start, sends its output and reads its metrics. It reports
// whether there was output.
func (ot *outputTail) scanAttempt(ctx context.Context, a *attempt, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.output.closed {
		return false
	}
	before := a.output.ref.Bytes
	if !a.announced && now.Sub(a.started) > announceAfter {
		a.announced = true
		a.report.readAt = now
		ot.outbox.addEvent(a.id.Sweep, report{event: a.startedEvent()})
	}
	for _, s := range a.output.sources {
		// One piece at a time: whatever is left comes with the next tick.
		if _, err := ot.sendPiece(ctx, a, s, false); err != nil && ctx.Err() == nil {
			ot.cfg.Logger.Warn("output can't be read", "trial", a.id, "err", err)
		}
	}
	interval := metricsInterval
	if a.task.Stop != nil {
		interval = earlyStopInterval
		if why := ot.sweeps.earlyStopReason(a.id.Sweep, a.run); why != "" && a.cancelProgram != nil {
			a.cancelProgram(earlyStop(why))
		}
	}
	if a.announced && now.Sub(a.report.readAt) > interval {
		a.report.readAt = now
		ot.publishMetrics(a, now)
	}
	return a.output.ref.Bytes > before
}

// publishMetrics sends the metrics of a running attempt to the master when they have changed, and
// from time to time otherwise, since a message may have been lost. Only history keeps them. a.mu is
// held.
func (ot *outputTail) publishMetrics(a *attempt, now time.Time) {
	read := a.readMetrics(false)
	m := read.values
	changed := !maps.EqualFunc(m, a.report.values, func(x, y json.RawMessage) bool { return bytes.Equal(x, y) })
	if len(m) == 0 || (!changed && now.Sub(a.report.sentAt) < metricsRepeatInterval) {
		return
	}
	if changed {
		a.report.values, a.report.changedAt = m, now
	}
	a.report.sentAt = now
	e := grid.Event{
		Kind: grid.Metrics, Index: a.id.Index, Attempt: a.number, Run: a.run, Time: a.report.changedAt.UnixMicro(),
		Metrics: m, Curves: read.curves,
	}
	if err := ot.cfg.Master.SendMetrics(&grid.Batch{
		V: grid.EventVersion, Sweep: a.id.Sweep, Node: ot.cfg.Node, Events: []grid.Event{e},
	}); err != nil {
		ot.cfg.Logger.Debug("metrics could not be sent", "trial", a.id, "err", err)
	}
}

// drain sends everything that an ended attempt has written.
func (ot *outputTail) drain(a *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.output.closed = true
	ot.sendOutput(a)
	if a.output.cut != nil {
		a.output.ref.Cut += a.output.cut.Bytes
	}
}

// sendOutput sends what the sources hold. a.mu is held.
func (ot *outputTail) sendOutput(a *attempt) {
	for _, s := range a.output.sources {
		for {
			more, err := ot.sendPiece(context.Background(), a, s, true) // waits for the store, however long it takes
			if err != nil && !errors.Is(err, errClosed) {
				ot.cfg.Logger.Warn("output can't be read", "trial", a.id, "err", err)
			}
			if !more || err != nil {
				break
			}
		}
	}
}

// sendPiece queues the next piece of a source and reports whether there may be more. What is over
// the limit is counted, not sent. A piece ends between two characters, so that one that is shown
// next to another stream's is never torn; only a source that has ended sends an incomplete
// character at its end.
func (ot *outputTail) sendPiece(ctx context.Context, a *attempt, s *outputSource, ended bool) (bool, error) {
	size, err := s.size()
	if err != nil || size <= s.sent {
		return false, err
	}
	room := max(0, min(size-s.sent, a.logLimit()-a.output.ref.Bytes))
	if a.output.ref.Cut > 0 { // nothing follows what was cut, so that what is stored has no gap
		room = 0
	}
	data := make([]byte, min(room, maxPiece))
	n, err := s.file.ReadAt(data, s.sent-s.truncated)
	if n == 0 && room > 0 && err != io.EOF {
		return false, err
	}
	if !ended || s.sent+int64(n) < size || s.bounded {
		n = completeRunes(data[:n])
	}
	if n == 0 {
		if room < size-s.sent || s.bounded {
			a.output.ref.Cut += size - s.sent
			s.sent = size
		}
		return false, nil
	}
	chunk := jetstream.Chunk{
		Index: a.id.Index, Run: a.run, Stream: s.stream, Offset: s.sent, Time: time.Now().UnixMicro(), Data: data[:n],
	}
	if err := ot.outbox.addOutput(ctx, a.id.Sweep, outputPiece{chunk: chunk, ref: &a.output.ref}); err != nil {
		return false, err
	}
	s.sent += int64(n)
	a.output.ref.Bytes += int64(n)
	return s.sent < size, nil
}

// completeRunes returns the length of b without an incomplete character at its end.
func completeRunes(b []byte) int {
	for i := len(b) - 1; i >= max(0, len(b)-utf8.UTFMax+1); i-- {
		if !utf8.RuneStart(b[i]) {
			continue
		}
		if !utf8.FullRune(b[i:]) {
			return i
		}
		break
	}
	return len(b)
}

// lastLines returns the last lines of a file, for a person. Of a line that was overwritten, as by
// progress bars, the last state counts: the earlier ones would push out the lines that say what
// happened.
func lastLines(f *os.File, lines int, bytes int64) string {
	end := string(readEnd(f, overwriteFactor*bytes))
	all := strings.Split(strings.ToValidUTF8(strings.TrimSpace(end), "�"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		line = strings.TrimRight(line, "\r")
		all[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}
	text := strings.Join(all, "\n")
	return strings.TrimSpace(strings.ToValidUTF8(text[max(0, len(text)-int(bytes)):], ""))
}

// overwriteFactor is how many times more of a file is read than is shown.
const overwriteFactor = 32
