package jetstream

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog passes on what nats-server has to say at warning level and above.
type serverLog struct {
	log     *slog.Logger
	suspect chan<- struct{} // told of errors without blocking

	mu   sync.Mutex
	last string // the latest fatal message
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

func (l *serverLog) Warnf(format string, v ...any) {
	if isMeant(format) {
		return
	}
	l.log.Warn("nats server", "msg", fmt.Sprintf(format, v...))
}

// Errorf is called with locks of nats-server held, so it must not block.
func (l *serverLog) Errorf(format string, v ...any) {
	if isMeant(format) {
		return
	}
	l.log.Error("nats server", "msg", fmt.Sprintf(format, v...))
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
