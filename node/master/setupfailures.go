package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// setupLimit is how often the setup step of a sweep may fail, without any success, before the sweep
// is paused: a misspelt package is misspelt for all of its trials. So is the name of an image.
const setupLimit = 3

// setupFailures are the failures of a sweep's setup step since a trial of it last ran.
type setupFailures struct {
	count int
	nodes []grid.NodeID
	class grid.Class   // grid.ClassSetup, or grid.ClassImage
	last  grid.TrialID // the trial that was to run
}

// setupMonitor counts the failures of setup steps, and pauses sweeps whose step always fails.
type setupMonitor struct {
	m       *Master
	bySweep map[grid.SweepID]*setupFailures
}

// record records one transition of a trial.
func (s *setupMonitor) record(t *history.Transition) {
	f := grid.FailureOf(t.Class)
	switch {
	case t.Change == grid.Reopen:
	case t.Change != grid.Began && (t.Class == grid.ClassSetup || t.Class == grid.ClassImage):
		b := s.bySweep[t.Sweep]
		if b == nil {
			b = &setupFailures{}
			s.bySweep[t.Sweep] = b
		}
		b.count, b.class, b.last = b.count+1, t.Class, grid.TrialID{Sweep: t.Sweep, Index: t.Index}
		if !slices.Contains(b.nodes, t.Node) {
			b.nodes = append(b.nodes, t.Node)
		}
	case t.Change == grid.Began || f.ProgramRan():
		delete(s.bySweep, t.Sweep)
	}
}

// pauseFailing pauses the sweeps whose setup step fails on each node that takes trials, or too
// often.
func (s *setupMonitor) pauseFailing(ctx context.Context, feeds map[grid.SweepID]*feed) error {
	for id, b := range s.bySweep {
		alone := s.m.cfg.Nodes == nil && b.class == grid.ClassImage // neither time nor another node helps
		if b.count < setupLimit && !alone && !s.failsEverywhere(feeds[id], b) {
			continue
		}
		f := feeds[id]
		if f == nil || !f.sweep.Active() {
			delete(s.bySweep, id)
			continue
		}
		why := s.problem(ctx, b)
		s.m.log.Warn("sweep is paused: its trials can't be prepared",
			"sweep", id, "class", b.class, "failures", b.count, "nodes", b.nodes)
		_, err := s.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			if r.State == grid.SweepRunning {
				r.State, r.Paused, r.Problem = grid.SweepPaused, time.Now().UTC(), why
			}
			return nil
		})
		if err != nil {
			return err
		}
		delete(s.bySweep, id)
	}
	return nil
}

// failsEverywhere reports whether there are several nodes and the step has failed on all of them.
func (s *setupMonitor) failsEverywhere(f *feed, b *setupFailures) bool {
	if f == nil || s.m.cfg.Nodes == nil || len(b.nodes) < 2 {
		return false
	}
	for _, m := range s.m.cfg.Nodes.Members() {
		if takesLeases(&m) && !slices.Contains(b.nodes, m.Node) && f.baseNeed().Nodes.Has(m.Node, m.Labels) {
			return false
		}
	}
	return true
}

// problem is what the user of a sweep is told, with the reason of the last failure.
func (s *setupMonitor) problem(ctx context.Context, b *setupFailures) string {
	names := make([]string, len(b.nodes))
	for i, n := range b.nodes {
		names[i] = string(n)
	}
	reason := ""
	attempts, err := s.m.cfg.History.Attempts(ctx, b.last)
	if err != nil {
		s.m.log.Warn("the attempts of a trial could not be read", "trial", b.last, "err", err)
	}
	for _, a := range attempts {
		if a.Result.Class == b.class {
			reason = ": " + strings.TrimPrefix(a.Result.Reason, "the setup step failed: ")
		}
	}
	if b.class == grid.ClassImage {
		return fmt.Sprintf("paused, because its image could not be had (on %s)%s\n"+
			"to try again: mlfnode resume %s", strings.Join(names, ", "), reason, b.last.Sweep)
	}
	return fmt.Sprintf("paused, because its setup failed %d times (on %s)%s\n"+
		"its full output: mlfnode logs %s; to try again: mlfnode resume %s",
		b.count, strings.Join(names, ", "), reason, b.last, b.last.Sweep)
}
