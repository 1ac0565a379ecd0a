package master

import (
	"fmt"

	"mlfnode/grid"
	"mlfnode/node/history"
)

const (
	// strikeLimit is how many attempts in a row must fail at their start on a node before it is quarantined.
	strikeLimit = 3
	// rememberedTrials bounds the trials of a sweep of which it is remembered where they failed at their start.
	rememberedTrials = 4096
)

// health tells broken nodes from broken programs. A node is to blame when trials fail at their start there, one after the other, that
// run on another node: exactly the same trials, since other trials of the sweep may run a different program. A program that can't be started
// anywhere is not the node's fault.
type health struct {
	strikes map[grid.NodeID]*strikes
	trials  map[grid.SweepID]map[int64]*places
	works   func(grid.NodeID) bool // reports whether a node takes trials; nil takes that for given
}

// places is where a trial has run, and where it failed at its start.
type places struct{ ran, failed map[grid.NodeID]bool }

// strikes are failures in a row on a node.
type strikes struct {
	sweep  grid.SweepID
	trials []int64
	reason grid.Class
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
	p := h.trials[t.Sweep][t.Index]
	if p == nil {
		if ran && t.Change == grid.Done { // like most trials: it has failed nowhere
			delete(h.strikes, t.Node)
			return
		}
		p = &places{ran: map[grid.NodeID]bool{}, failed: map[grid.NodeID]bool{}}
	}
	switch {
	case ran:
		delete(h.strikes, t.Node)
		p.ran[t.Node] = true
	case f.AtStart:
		s := h.strikes[t.Node]
		if s == nil || s.sweep != t.Sweep {
			s = &strikes{sweep: t.Sweep}
			h.strikes[t.Node] = s
		}
		s.trials, s.reason = append(s.trials, t.Index), t.Class
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

// broken gives the nodes to quarantine, each with the reason, and begins to count anew for them.
func (h *health) broken() map[grid.NodeID]string {
	found := map[grid.NodeID]string{}
	for node, s := range h.strikes {
		proofs := map[grid.NodeID]int{}
		for _, index := range s.trials {
			if p := h.trials[s.sweep][index]; p != nil {
				for other := range p.ran {
					proofs[other]++
				}
			}
		}
		proven, other := 0, grid.NodeID("")
		for by, n := range proofs {
			if by != node && found[by] == "" && (h.works == nil || h.works(by)) {
				proven += n
				other = max(other, by)
			}
		}
		if proven >= strikeLimit {
			found[node] = fmt.Sprintf("%d trials of %s in a row failed at their %s here, and ran on %s", len(s.trials), s.sweep, s.reason, other)
		}
	}
	for node := range found {
		delete(h.strikes, node)
	}
	return found
}

// forget drops what is known of a sweep that has ended.
func (h *health) forget(id grid.SweepID) { delete(h.trials, id) }
