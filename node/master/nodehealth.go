package master

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/history"
)

const (
	// streakLimit is how many attempts in a row must fail at their start on a node before it is
	// quarantined.
	streakLimit = 3
	// maxHealthTrials bounds the trials of a sweep for which nodeHealth keeps where they failed at
	// their start.
	maxHealthTrials = 4096
	// maxNamedSweeps is how many sweeps a reason names.
	maxNamedSweeps = 3
)

// streakAge is how long failures that are not failures at the start count: their trials ran for a
// while.
const streakAge = time.Hour

// withholdFor is how long a node gets no trials that need its GPUs, or its container engine, or of
// the same lane, after such trials failed there in a row. Then it is tried once more.
const withholdFor = time.Hour

// nodeHealth tells broken nodes from broken programs. A node is to blame when trials fail at their
// start there, one after the other, that run on another node: exactly the same trials, since other
// trials of the sweep may run a different program. A program that can't be started anywhere is not
// the node's fault. The same holds for failures whose class makes the node suspect (a full disk,
// its driver): they count when the same trials end otherwise on another node.
type nodeHealth struct {
	streaks     map[streakKey]*failureStreak
	trials      map[grid.SweepID]map[int64]*trialNodes
	takesTrials func(grid.NodeID) bool // reports whether a node takes trials; nil assumes that it does
}

// streakKey identifies a kind of failures of a node: those of one class that makes the node
// suspect, or all failures at the start, which have no class here.
type streakKey struct {
	node  grid.NodeID
	class grid.Class
}

// trialNodes are the nodes on which a trial ran, on which it ran to an end that is not the node's
// fault, and on which it failed in a way that makes the node suspect.
type trialNodes struct{ ran, ended, failed map[grid.NodeID]bool }

// failureStreak is a series of failures of one kind on a node, of any sweeps, without a trial in
// between that proves that the node works.
type failureStreak struct {
	trials []grid.TrialID
	reason grid.Class
	last   int64 // microseconds since 1970
}

// record records one transition of a trial.
func (h *nodeHealth) record(t *history.Transition) {
	if t.Node == "" || t.Change == grid.Reopen {
		return
	}
	f := grid.FailureOf(t.Class)
	ran := t.Change == grid.Began || f.ProgramRan()
	ended := t.Change != grid.Began && f.ProgramRan()
	suspect := f.AtStart || f.Suspect == grid.ScopeNode || f.Suspect == grid.ScopeGPUs ||
		f.Suspect == grid.ScopeLane || f.Suspect == grid.ScopeContainers
	p := h.trials[t.Sweep][t.Index]
	if p == nil {
		if ran && t.Change == grid.Done { // like most trials: it has failed nowhere
			h.clearStreaks(t.Node, true)
			return
		}
		p = &trialNodes{ran: map[grid.NodeID]bool{}, ended: map[grid.NodeID]bool{}, failed: map[grid.NodeID]bool{}}
	}
	switch {
	case ran:
		h.clearStreaks(t.Node, ended)
		p.ran[t.Node] = true
		if ended {
			p.ended[t.Node] = true
		}
	case suspect:
		key := streakKey{t.Node, t.Class}
		if f.AtStart {
			key.class = grid.ClassNone
		}
		s := h.streaks[key]
		if s == nil || !f.AtStart && t.Ended-s.last > streakAge.Microseconds() {
			s = &failureStreak{}
			h.streaks[key] = s
		}
		s.trials, s.reason, s.last = append(s.trials, grid.TrialID{Sweep: t.Sweep, Index: t.Index}), t.Class, t.Ended
		s.trials = s.trials[max(len(s.trials)-maxHealthTrials, 0):]
		p.failed[t.Node] = true
	default:
		return // this says nothing about the program
	}
	h.recordTrial(t, p)
}

// clearStreaks ends the streaks of a node on which a trial ran: those at the start of trials, or
// all if the trial ended there as it should.
func (h *nodeHealth) clearStreaks(node grid.NodeID, ended bool) {
	maps.DeleteFunc(h.streaks, func(key streakKey, _ *failureStreak) bool {
		return key.node == node && (ended || key.class == grid.ClassNone)
	})
}

// forgetNode forgets a node that was taken out of the cluster.
func (h *nodeHealth) forgetNode(node grid.NodeID) {
	maps.DeleteFunc(h.streaks, func(key streakKey, _ *failureStreak) bool { return key.node == node })
	for _, trials := range h.trials {
		for _, p := range trials {
			delete(p.ran, node)
			delete(p.ended, node)
			delete(p.failed, node)
		}
	}
}

// recordTrial keeps where a trial ran and failed while that may still prove something: until it has
// ended, or longer where it failed at its start, since it may be run again.
func (h *nodeHealth) recordTrial(t *history.Transition, p *trialNodes) {
	all := h.trials[t.Sweep]
	if all == nil {
		all = map[int64]*trialNodes{}
		h.trials[t.Sweep] = all
	}
	if t.Change == grid.Done && len(p.failed) == 0 {
		delete(all, t.Index)
	} else if all[t.Index] != nil || len(all) < maxHealthTrials {
		all[t.Index] = p
	}
}

// brokenPart is a part of a node, or all of it, that turned out to be broken.
type brokenPart struct {
	part   grid.Scope
	reason string
	sweeps []grid.SweepID // whose trials failed there
}

// takeBroken returns what to quarantine of nodes, and ends their streaks.
func (h *nodeHealth) takeBroken() map[grid.NodeID]brokenPart {
	found := map[grid.NodeID]brokenPart{}
	for key, s := range h.streaks {
		proofs := map[grid.NodeID]int{}
		for _, id := range s.trials {
			if p := h.trials[id.Sweep][id.Index]; p != nil {
				innocent := p.ran
				if key.class != grid.ClassNone {
					innocent = p.ended
				}
				for other := range innocent {
					proofs[other]++
				}
			}
		}
		proven, other := 0, grid.NodeID("")
		for by, n := range proofs {
			if by != key.node && found[by].part != grid.ScopeNode && (h.takesTrials == nil || h.takesTrials(by)) {
				proven += n
				other = max(other, by)
			}
		}
		if proven >= streakLimit && found[key.node].part != grid.ScopeNode {
			found[key.node] = s.diagnose(key, other)
		}
	}
	for node := range found {
		h.clearStreaks(node, true)
	}
	return found
}

// diagnose says in words what is broken.
func (s *failureStreak) diagnose(key streakKey, other grid.NodeID) brokenPart {
	var sweeps []grid.SweepID
	var named []string
	for _, id := range s.trials {
		if slices.Contains(sweeps, id.Sweep) {
			continue
		}
		if sweeps = append(sweeps, id.Sweep); len(named) < maxNamedSweeps {
			named = append(named, string(id.Sweep))
		}
	}
	of := strings.Join(named, ", ")
	if key.class == grid.ClassNone {
		reason := fmt.Sprintf("%d trials of %s in a row failed at their %s here, and ran on %s",
			len(s.trials), of, s.reason, other)
		return brokenPart{grid.ScopeNode, reason, sweeps}
	}
	f := grid.FailureOf(s.reason)
	reason := fmt.Sprintf("%s (%s): %d attempts of %s in a row failed so here, and their trials did not on %s; %s",
		f.Cause, s.reason, len(s.trials), of, other, f.Hint)
	return brokenPart{f.Suspect, reason, sweeps}
}

// quarantine stops leasing trials to nodes, or parts of nodes, that turned out to be broken.
func (w *nodeWatcher) quarantine(h *nodeHealth) {
	if w.m.cfg.Nodes == nil {
		return
	}
	h.takesTrials = w.takesTrials
	for node, b := range h.takeBroken() {
		if b.part == grid.ScopeNode {
			w.m.log.Warn("node is quarantined", "node", node, "reason", b.reason)
			w.m.cfg.Nodes.Quarantine(node, b.reason)
			continue
		}
		w.m.log.Warn("trials are withheld from a part of a node", "node", node, "part", b.part, "reason", b.reason)
		parts := []grid.Scope{b.part}
		if b.part == grid.ScopeLane {
			parts = nil // the lanes of the sweeps whose trials failed
			for _, id := range b.sweeps {
				if record, ok := w.m.Sweep(id); ok {
					for lane := range record.AllLanes() {
						parts = append(parts, grid.ScopeOfLane(lane))
					}
				}
			}
		}
		for _, part := range parts {
			w.m.cfg.Nodes.Withhold(node, part, b.reason, time.Now().Add(withholdFor))
		}
	}
}

// takesTrials reports whether a node is up and may take trials, so that another one can be spared.
func (w *nodeWatcher) takesTrials(node grid.NodeID) bool {
	if drained, _, _ := w.m.cfg.Nodes.Drain(node); drained {
		return false
	}
	member := findMember(w.m.cfg.Nodes.Members(), node) // nil: it has reported, and gossip has not heard of it yet
	return member == nil || member.State == cluster.Alive
}
