package natsd

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"mlfnode/node/poll"
)

// serverLog is the logger of nats-server. It passes on messages at warning level and above.
type serverLog struct {
	log           *slog.Logger
	disposable    []string
	errorReported poll.Signal // is set with each error

	mu            sync.Mutex
	lastFatal     string
	clientWarned  time.Time            // when a client's fault was last logged
	clientSkipped int                  // how many have been skipped since
	repeated      map[string]time.Time // when messages were last logged
}

// clientMark is in every message about one connection: nats-server adds the client's number.
const clientMark = " - cid:"

// clientInterval is how often faults of clients are logged: nobody who can reach the port must be
// able to fill the disk.
const clientInterval = time.Minute

// logClient reports whether the message is about a connection. It logs such messages once in a
// clientInterval.
func (l *serverLog) logClient(msg string) bool {
	if !strings.Contains(msg, clientMark) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.clientWarned) < clientInterval {
		l.clientSkipped++
		return true
	}
	l.log.Warn("connection is refused or misused", "msg", msg, "more", l.clientSkipped)
	l.clientWarned, l.clientSkipped = now, 0
	return true
}

const (
	// repeatInterval is how often the same message is logged: on a full disk nats-server repeats
	// one every other second.
	repeatInterval = time.Minute
	// maxRepeated bounds the messages that are remembered.
	maxRepeated = 64
)

// isRepeated reports whether a message was logged within repeatInterval.
func (l *serverLog) isRepeated(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.repeated[msg]; ok && now.Sub(last) < repeatInterval {
		return true
	}
	if l.repeated == nil || len(l.repeated) >= maxRepeated {
		l.repeated = map[string]time.Time{}
	}
	l.repeated[msg] = now
	return false
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

// intended are the beginnings of warnings about intended settings: clients that do not begin with
// TLS are refused, and no address of this machine is found to advertise to clients, which need
// none.
var intended = [...]string{
	`Clients that are not using "TLS Handshake First" option`, `Address %q can not be resolved properly`,
}

func isIntended(format string) bool {
	return slices.ContainsFunc(intended[:], func(text string) bool { return strings.HasPrefix(format, text) })
}

// rebuilt are the beginnings of messages about a stream that nats-server did not close, since the
// process was killed. The index of such a stream is older than its messages, or was torn while it
// was written. nats-server rebuilds it from the messages, which have checksums of their own.
// Messages that report missing or wrong data are not among these.
var rebuilt = [...]string{
	"Stream state outdated, ", "Stream state too short ", "Stream state checksum did not match",
	"Recovering stream state from index errored: prior state file",
	"Recovering stream state from index errored: corrupt state file",
	"TTL state is outdated; attempting to recover ",
}

// isRebuilt reports whether a message is about something that nats-server rebuilds by itself after
// a kill, with nothing lost. Missing messages of disposable streams count as such.
func (l *serverLog) isRebuilt(msg string) bool {
	if store, found := strings.CutPrefix(msg, "Filestore ["); found {
		_, about, _ := strings.Cut(store, "] ")
		return slices.ContainsFunc(rebuilt[:], func(text string) bool { return strings.HasPrefix(about, text) })
	}
	return strings.HasPrefix(msg, "JetStream consumer '") && strings.Contains(msg, " past last stream sequence of ") &&
		slices.ContainsFunc(l.disposable, func(stream string) bool { return strings.Contains(msg, " > "+stream+" > ") })
}

// Warnf implements server.Logger.
func (l *serverLog) Warnf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if isIntended(format) || l.logClient(msg) || l.isRepeated(msg) {
		return
	}
	level := slog.LevelWarn
	if l.isRebuilt(msg) {
		level = slog.LevelInfo
	}
	l.log.Log(context.Background(), level, "nats server", "msg", msg) // nats-server passes no context
}

// Errorf implements server.Logger. It is called with locks of nats-server held, so it must not
// block.
func (l *serverLog) Errorf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if isIntended(format) || l.logClient(msg) {
		return
	}
	if !l.isRepeated(msg) {
		l.log.Error("nats server", "msg", msg)
	}
	l.errorReported.Set()
}

// Fatalf implements server.Logger. It does not end the process, as nats-server's own logger would:
// Start returns the message.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastFatal = fmt.Sprintf(format, v...)
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastFatal
}
