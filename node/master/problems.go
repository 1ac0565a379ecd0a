package master

import (
	"cmp"
	"log/slog"
	"sync"
)

// subsystem is a part of the master that retries what fails. Each has a problem of its own: that
// one part works says nothing about another.
type subsystem int

const (
	folding subsystem = iota
	leasing
	reconciling
	subsystemCount
)

// problems says what hinders the master.
type problems struct {
	log     *slog.Logger
	changed func() // called when a problem has changed

	mu          sync.Mutex
	bySubsystem [subsystemCount]string
	space       string // which part of the store is nearly full, and what to do
}

// current returns the most important problem, "" when there is none.
func (p *problems) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.bySubsystem[folding], p.bySubsystem[leasing], p.bySubsystem[reconciling], p.space)
}

// hasProblem reports whether something has failed that is retried.
func (p *problems) hasProblem() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bySubsystem != [len(p.bySubsystem)]string{}
}

// currentSpaceProblem says that the store is nearly full and what to do about it, "" when it is
// not.
func (p *problems) currentSpaceProblem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.space
}

func (p *problems) setSpaceProblem(problem string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (p.space == "") != (problem == "") {
		p.log.Warn("room in the store", "problem", problem)
		defer p.changed()
	}
	p.space = problem
}

// setProblem sets what hinders a subsystem, "" for nothing, and reports whether that is a change.
func (p *problems) setProblem(of subsystem, problem string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bySubsystem[of] == problem {
		return false
	}
	p.bySubsystem[of] = problem
	p.changed()
	return true
}
