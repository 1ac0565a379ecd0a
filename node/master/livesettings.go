package master

import (
	"sync"
)

// liveSettings are the settings that change while the master runs.
type liveSettings struct {
	mu         sync.Mutex
	retention  Retention
	maxCrashes int // how many nodes may die under a trial
	outages    Outage
}

// retained returns what is kept.
func (l *liveSettings) retained() Retention {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retention
}

// Retain changes the retention, and how many nodes may die under a trial.
func (l *liveSettings) Retain(r Retention, crashes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retention, l.maxCrashes = r, crashes
}

// crashLimit returns how many nodes may die under a trial before it is set aside.
func (l *liveSettings) crashLimit() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.maxCrashes
}

// SetOutage changes how silent nodes are treated.
func (l *liveSettings) SetOutage(o Outage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages = o
}

func (l *liveSettings) outage() Outage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outages
}

func (l *liveSettings) reconcile() Reconcile { return l.outage().Reconcile }
