package cluster

import (
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"mlfnode/grid/lazyregexp"
)

// memberlistLog sends memberlist's lines to debug. Its warnings are not news to an operator: what
// they lead to is told by the states. One thing is: packets that no key opens, or of another
// cluster.
func memberlistLog(to *slog.Logger) *log.Logger {
	return log.New(&lines{to: to}, "", 0)
}

// lines is a writer of whole lines.
type lines struct {
	to *slog.Logger

	mu      sync.Mutex
	refused int // packets since the last warning
	warned  time.Time
}

// foreign are the words of memberlist about packets that are not of this cluster.
var foreign = []string{"unacceptable label", "Decrypt packet failed", "decrypt", "label header", "not encrypted"}

// content is what may have come from outside: quoted labels, and the bytes of metadata.
var content = lazyregexp.New(`"(?:[^"\\]|\\.)*"|meta:\(.*\)`)

func (l *lines) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	// A connection without a word is a look whether the port is open; nodes do it themselves before
	// they join.
	if strings.Contains(line, `unacceptable label ""`) {
		return len(p), nil
	}
	for _, words := range foreign {
		if strings.Contains(line, words) {
			l.refuse()
			break
		}
	}
	line = content.Get().ReplaceAllString(strings.Replace(line, "memberlist: ", "", 1), "(left out)")
	l.to.Debug("memberlist", "line", printable([]byte(line), maxReason))
	return len(p), nil
}

// refuse warns once a minute.
func (l *lines) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	if now := time.Now(); now.Sub(l.warned) >= warnAgain {
		l.to.Warn("gossip of another cluster or with an unknown key was refused", "count", l.refused)
		l.refused, l.warned = 0, now
	}
}
