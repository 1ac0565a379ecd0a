package jetstream

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// serverLog passes on what nats-server has to say at warning level and above.
type serverLog struct {
	log     *slog.Logger
	suspect chan<- struct{} // told of errors without blocking

	mu     sync.Mutex
	last   string    // the latest fatal message
	told   time.Time // when a client's fault was last logged
	untold int       // how many there were since

	repeated map[string]time.Time // messages with the time when they were last logged
}

// clientMark is in messages about one connection: nats-server puts the client's number into them.
const clientMark = " - cid:"

// clientInterval is how often faults of clients are logged: whoever knocks at the door must not be able to fill the disk.
const clientInterval = time.Minute

// client logs what is wrong with a connection, now and then, and reports whether the message is about one.
func (l *serverLog) client(msg string) bool {
	if !strings.Contains(msg, clientMark) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.told) < clientInterval {
		l.untold++
		return true
	}
	l.log.Warn("connection is refused or misused", "msg", msg, "more", l.untold)
	l.told, l.untold = now, 0
	return true
}

const (
	// repeatInterval is how often the same message is logged: on a full disk nats-server says the same every other second.
	repeatInterval = time.Minute
	// maxRepeated bounds the messages that are remembered.
	maxRepeated = 64
)

// repeats reports whether a message was logged a short while ago.
func (l *serverLog) repeats(msg string) bool {
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

// meant begins what nats-server says of settings that are meant so: that clients which do not begin with TLS are refused, and
// that it finds no address of this machine to tell to clients, which are told none anyway.
var meant = [...]string{`Clients that are not using "TLS Handshake First" option`, `Address %q can not be resolved properly`}

func isMeant(format string) bool {
	for _, text := range meant {
		if strings.HasPrefix(format, text) {
			return true
		}
	}
	return false
}

// repaired begins what nats-server says of a stream that it did not close itself: the process was killed. The index of such a stream
// is older than its messages, or was torn while it was written, and is built again from the messages, which have checksums of
// their own. What says that messages are missing or wrong is not among these.
var repaired = [...]string{
	"Stream state outdated, ", "Stream state too short ", "Stream state checksum did not match",
	"Recovering stream state from index errored: prior state file", "Recovering stream state from index errored: corrupt state file",
	"TTL state is outdated; attempting to recover ",
}

// isRepaired reports whether a message is about what nats-server sets right by itself after a kill, with nothing lost. Leases that
// are gone count as such: their queue is not synced, and the master makes them again.
func isRepaired(msg string) bool {
	if store, found := strings.CutPrefix(msg, "Filestore ["); found {
		_, about, _ := strings.Cut(store, "] ")
		return slices.ContainsFunc(repaired[:], func(text string) bool { return strings.HasPrefix(about, text) })
	}
	return strings.HasPrefix(msg, "JetStream consumer '") && strings.Contains(msg, " > "+leaseStream+" > ") &&
		strings.Contains(msg, " past last stream sequence of ")
}

func (l *serverLog) Warnf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if isMeant(format) || l.client(msg) || l.repeats(msg) {
		return
	}
	level := slog.LevelWarn
	if isRepaired(msg) {
		level = slog.LevelInfo
	}
	l.log.Log(context.Background(), level, "nats server", "msg", msg)
}

// Errorf is called with locks of nats-server held, so it must not block.
func (l *serverLog) Errorf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if isMeant(format) || l.client(msg) {
		return
	}
	if !l.repeats(msg) {
		l.log.Error("nats server", "msg", msg)
	}
	select {
	case l.suspect <- struct{}{}:
	default:
	}
}

// Fatalf does not end the process, as nats-server's own logger would: Start returns the message.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = fmt.Sprintf(format, v...)
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
