package cluster

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"mlfnode/grid/lazyregexp"
)

// memberlistLog is a writer of whole lines, which logs memberlist's lines as debug messages. Its
// warnings are not news to an operator, who sees their effect in the states of members. One thing
// is news: packets that no key opens, or that belong to another cluster.
type memberlistLog struct {
	to *slog.Logger

	mu      sync.Mutex
	refused int // packets since the last warning
	warned  time.Time
}

// foreign are the words of memberlist about packets that are not of this cluster.
var foreign = []string{"unacceptable label", "Decrypt packet failed", "decrypt", "label header", "not encrypted"}

// content is what may have come from outside: quoted labels, and the bytes of metadata.
var content = lazyregexp.New(`"(?:[^"\\]|\\.)*"|meta:\(.*\)`)

func (l *memberlistLog) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	// A connection without a word is a look whether the port is open; nodes do it themselves before
	// they join.
	if strings.Contains(line, `unacceptable label ""`) {
		return len(p), nil
	}
	for _, words := range foreign {
		if strings.Contains(line, words) {
			l.countRefused()
			break
		}
	}
	line = content.Get().ReplaceAllString(strings.Replace(line, "memberlist: ", "", 1), "(left out)")
	l.to.Debug("memberlist", "line", printable([]byte(line), maxReason))
	return len(p), nil
}

// countRefused warns once a minute.
func (l *memberlistLog) countRefused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused++
	if now := time.Now(); now.Sub(l.warned) >= warnAgain {
		l.to.Warn("gossip of another cluster or with an unknown key was refused", "count", l.refused)
		l.refused, l.warned = 0, now
	}
}
