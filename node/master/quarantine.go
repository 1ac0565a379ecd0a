package master

import (
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

const (
	// strikeLimit is how many attempts in a row must fail at their start on a node before it is quarantined.
	strikeLimit = 3
	// rememberedTrials bounds the trials of a sweep of which it is remembered where they failed at their start.
	rememberedTrials = 4096
)

// strikeAge is how long failures of a node count that are not failures at its start: their trials ran for a while.
const strikeAge = time.Hour

// health tells broken nodes from broken programs. A node is to blame when trials fail at their start there, one after the other, that
// run on another node: exactly the same trials, since other trials of the sweep may run a different program. A program that can't be started
// anywhere is not the node's fault. The same holds for failures whose class makes the node suspect (a full disk, its driver): they count
// when the same trials end otherwise on another node.
type health struct {
	strikes map[grid.NodeID]*strikes
	trials  map[grid.SweepID]map[int64]*places
	works   func(grid.NodeID) bool // reports whether a node takes trials; nil takes that for given
}

// places is where a trial has run, where it ran to an end that is not the node's fault, and where it failed so that the node is suspect.
type places struct{ ran, ended, failed map[grid.NodeID]bool }

// strikes are failures in a row on a node, either at the start of trials or all of one class that makes the node suspect.
type strikes struct {
	sweep   grid.SweepID
	trials  []int64
	atStart bool
	reason  grid.Class
	last    int64 // microseconds since 1970
}

// continues reports whether a failure belongs to the strikes.
func (s *strikes) continues(t *history.Transition, f *grid.Failure) bool {
	if s == nil || s.sweep != t.Sweep || s.atStart != f.AtStart {
		return false
	}
	return s.atStart || s.reason == t.Class && t.Ended-s.last < strikeAge.Microseconds()
}

func newHealth() *health {
	return &health{strikes: map[grid.NodeID]*strikes{}, trials: map[grid.SweepID]map[int64]*places{}}
}

// note follows one change of a trial.
func (h *health) note(t *history.Transition) {
	if t.Node == "" || t.Change == grid.Reopen {
		return
	}
	f := grid.FailureOf(t.Class)
	ran := t.Change == grid.Began || f.Ran()
	ended := t.Change != grid.Began && f.Ran()
	suspect := f.AtStart || f.Suspect == grid.ScopeNode || f.Suspect == grid.ScopeGPUs || f.Suspect == grid.ScopeContainers
	p := h.trials[t.Sweep][t.Index]
	if p == nil {
		if ran && t.Change == grid.Done { // like most trials: it has failed nowhere
			delete(h.strikes, t.Node)
			return
		}
		p = &places{ran: map[grid.NodeID]bool{}, ended: map[grid.NodeID]bool{}, failed: map[grid.NodeID]bool{}}
	}
	switch {
	case ran:
		if s := h.strikes[t.Node]; s != nil && (s.atStart || ended) {
			delete(h.strikes, t.Node)
		}
		p.ran[t.Node] = true
		if ended {
			p.ended[t.Node] = true
		}
	case suspect:
		s := h.strikes[t.Node]
		if !s.continues(t, &f) {
			s = &strikes{sweep: t.Sweep, atStart: f.AtStart}
			h.strikes[t.Node] = s
		}
		s.trials, s.reason, s.last = append(s.trials, t.Index), t.Class, t.Ended
		s.trials = s.trials[max(len(s.trials)-rememberedTrials, 0):]
		p.failed[t.Node] = true
	default:
		return // it says nothing of the program
	}
	h.remember(t, p)
}

// remember keeps where a trial ran and failed while that may still tell something: until it has ended, or longer where it failed at
// its start, since somebody may have it run again.
func (h *health) remember(t *history.Transition, p *places) {
	all := h.trials[t.Sweep]
	if all == nil {
		all = map[int64]*places{}
		h.trials[t.Sweep] = all
	}
	if t.Change == grid.Done && len(p.failed) == 0 {
		delete(all, t.Index)
	} else if all[t.Index] != nil || len(all) < rememberedTrials {
		all[t.Index] = p
	}
}

// blame is a part of a node, or all of it, that turned out to be broken.
type blame struct {
	part   grid.Scope
	reason string
}

// broken gives what to quarantine of nodes, each with the reason, and starts counting again for them.
func (h *health) broken() map[grid.NodeID]blame {
	found := map[grid.NodeID]blame{}
	for node, s := range h.strikes {
		proofs := map[grid.NodeID]int{}
		for _, index := range s.trials {
			if p := h.trials[s.sweep][index]; p != nil {
				innocent := p.ran
				if !s.atStart {
					innocent = p.ended
				}
				for other := range innocent {
					proofs[other]++
				}
			}
		}
		proven, other := 0, grid.NodeID("")
		for by, n := range proofs {
			if by != node && found[by].part != grid.ScopeNode && (h.works == nil || h.works(by)) {
				proven += n
				other = max(other, by)
			}
		}
		if proven >= strikeLimit {
			found[node] = s.blame(other)
		}
	}
	for node := range found {
		delete(h.strikes, node)
	}
	return found
}

// blame says in words what is broken.
func (s *strikes) blame(other grid.NodeID) blame {
	if s.atStart {
		return blame{grid.ScopeNode, fmt.Sprintf("%d trials of %s in a row failed at their %s here, and ran on %s", len(s.trials), s.sweep, s.reason, other)}
	}
	f := grid.FailureOf(s.reason)
	return blame{f.Suspect, fmt.Sprintf("%s (%s): %d attempts of %s in a row failed so here, and their trials did not on %s; %s",
		f.Cause, s.reason, len(s.trials), s.sweep, other, f.Hint)}
}

// forget drops what is known of a sweep that has ended.
func (h *health) forget(id grid.SweepID) { delete(h.trials, id) }
