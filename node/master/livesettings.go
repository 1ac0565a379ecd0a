package master

import (
	"sync"
)

// liveSettings are the settings that change while the master runs.
type liveSettings struct {
	mu     sync.Mutex
	values settings
}

type settings struct {
	retention  Retention
	crashLimit int // how many nodes may die under a trial before it is set aside
	outage     Outage
}

func (l *liveSettings) settings() settings {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.values
}

// Retain changes the retention, and how many nodes may die under a trial.
func (l *liveSettings) Retain(r Retention, crashes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values.retention, l.values.crashLimit = r, crashes
}

// SetOutage changes how silent nodes are treated.
func (l *liveSettings) SetOutage(o Outage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values.outage = o
}
