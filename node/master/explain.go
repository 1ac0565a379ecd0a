package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// pendingTrial is what the scheduler knows of a trial that waits.
type pendingTrial struct {
	hasFeed  bool // the sweep's trials are being leased
	lane     grid.Lane
	due      time.Time   // when its retry is due
	attempt  int         // number of that retry
	leased   time.Time   // when the trial was leased; zero when it is not
	holder   grid.NodeID // of the lease
	before   int64       // trials of the sweep that are leased first
	limit    int         // the maximum number of leases of the sweep, when it is reached
	failedOn []failedPlace

	sharing []string // what it gets of each model of GPU, with gpu_memory: auto
}

// pendingTrial returns what is known of a trial.
func (s *scheduler) pendingTrial(id grid.TrialID, now time.Time) (w pendingTrial) {
	f := s.feeds[id.Sweep]
	if f == nil {
		return w
	}
	need, ok := f.escalated[id.Index]
	if !ok {
		need = f.baseNeed()
	}
	if f.sharing != nil && !ok {
		value := f.measureValue(id.Index)
		for _, e := range f.sharing.estimatesFor(value) {
			w.sharing = append(w.sharing, "on "+e.Model+" "+e.String())
			if part, shared := f.sharing.partFor(e.Model, value); shared {
				need = part
			}
		}
	}
	w.hasFeed, w.lane, w.failedOn = true, f.laneFor(need), f.failedOn[id.Index]
	for name, l := range f.leases {
		if l.lo <= id.Index && id.Index < l.hi {
			w.lane, w.leased, w.holder = l.lane, l.since, s.m.leases.holderOf(name)
			return w
		}
	}
	if limit := f.sweep.MaxParallel; limit > 0 && len(f.leases) >= limit {
		w.limit = limit
	}
	if e, ok := f.retries.find(id.Index); ok {
		if e.due.After(now) {
			w.due = e.due
		}
		w.attempt = e.attempt
		return w
	}
	for gap := range f.missing() {
		if gap.Lo <= id.Index && id.Index < gap.Hi {
			w.before += id.Index - gap.Lo
			break
		}
		w.before += gap.Hi - gap.Lo
	}
	return w
}

// Explain says what state a trial is in, and what keeps one that waits from running.
func (q *inspector) Explain(ctx context.Context, id grid.TrialID) (api.Explanation, error) {
	e := api.Explanation{Trial: id.String(), State: grid.Pending}
	r, ok := q.m.Sweep(id.Sweep)
	if !ok {
		return e, notFound(id.Sweep)
	}
	t, known, err := q.m.cfg.History.Trial(ctx, id)
	if err != nil {
		return e, fmt.Errorf("find %s: %w", id, err)
	}
	if known {
		e.State = t.State
	}
	switch {
	case e.State == grid.Running:
		e.Text = fmt.Sprintf("it runs on %s since %s", t.Node, formatTime(time.UnixMicro(t.Result.Started)))
		return e, nil
	case e.State.Terminal():
		e.Text = "it has ended"
		return e, nil
	case r.Sweep.State != grid.SweepRunning:
		e.Text = fmt.Sprintf("its sweep is %s", r.Sweep.State)
		return e, nil
	}
	now := time.Now()
	w, err := ask(ctx, q.m.inbox, func(s *scheduler) pendingTrial { return s.pendingTrial(id, now) })
	if err != nil {
		return e, err
	}
	e.Text = strings.Join(append([]string{w.describe(now)}, w.sharing...), "; ")
	if known && t.Result.Class != "" {
		e.Text += fmt.Sprintf("; the last attempt failed: %s", t.Result.Class)
	}
	if problem := q.m.Problem(); problem != "" {
		e.Text += "; " + problem
	}
	if w.hasFeed && w.holder == "" {
		e.Nodes = q.m.obstacles(&w)
	}
	return e, nil
}

// formatTime formats a time of day for people, with the date when it is not today's.
func formatTime(t time.Time) string {
	if t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// describe says how the trial stands in its sweep.
func (w *pendingTrial) describe(now time.Time) string {
	switch {
	case !w.hasFeed:
		return "its sweep was submitted a moment ago"
	case w.holder != "":
		return fmt.Sprintf("%s has it, and begins it after other trials of the same lease", w.holder)
	case !w.leased.IsZero():
		return fmt.Sprintf("it is in the queue since %s, and no node has taken it", formatTime(w.leased))
	case !w.due.IsZero():
		return fmt.Sprintf("attempt %d begins in %s at the earliest", w.attempt, w.due.Sub(now).Round(time.Second))
	case w.limit > 0:
		return fmt.Sprintf("%d trials of its sweep run or are queued, and max_parallel is %d", w.limit, w.limit)
	case w.before == 1:
		return "1 trial of its sweep comes before it"
	case w.before > 1:
		return fmt.Sprintf("%d trials of its sweep come before it", w.before)
	}
	return "it is the next of its sweep"
}

// obstacles says, for each node that runs trials, what keeps the trial from starting there.
func (w *nodeWatcher) obstacles(trial *pendingTrial) []api.Obstacle {
	nodes := w.m.cfg.Nodes
	if nodes == nil {
		if w.m.cfg.LocalRefusals == nil {
			return nil
		}
		return []api.Obstacle{obstacle("", w.m.cfg.LocalRefusals()[trial.lane])}
	}
	var all []api.Obstacle
	for _, member := range nodes.Members() {
		if !member.Has(grid.Worker) {
			continue
		}
		o := api.Obstacle{Node: member.Node}
		drain, broken, reason := nodes.Drain(member.Node)
		refusal, there := w.nodes.refusal(member.Node, trial.lane, time.Now())
		failedHere := slices.ContainsFunc(trial.failedOn, func(s failedPlace) bool { return s.node == member.Node })
		switch {
		case !member.There() || !there:
			o.Code, o.Text = "away", "is not there"
		case broken:
			o.Code, o.Text = "quarantined", reason
		case drain:
			o.Code, o.Text = "drained", "is drained"
			if reason != "" {
				o.Text += ": " + reason
			}
		case member.Reason != "":
			o.Code, o.Text = "trouble", member.Reason
		case failedHere && refusal.Code == "":
			o.Code, o.Text = "avoid", "an attempt of it failed here, so it is to run elsewhere"
		default:
			o = obstacle(member.Node, refusal)
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b api.Obstacle) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

func obstacle(node grid.NodeID, refusal grid.Refusal) api.Obstacle {
	if refusal.Code == "" {
		return api.Obstacle{Node: node, Code: "quiet", Text: "nothing is in the way"}
	}
	return api.Obstacle{Node: node, Code: string(refusal.Code), Text: refusal.String()}
}

// WaitingNodes lists, in one line, the nodes without room for the trials of a sweep and why, ""
// when no node has reported that.
func (w *nodeWatcher) WaitingNodes(s *grid.Sweep) string {
	lane := s.Lane()
	if w.m.cfg.Nodes == nil {
		if w.m.cfg.LocalRefusals != nil {
			if refusal := w.m.cfg.LocalRefusals()[lane]; refusal.Code != "" {
				return refusal.String()
			}
		}
		return ""
	}
	var all []string
	w.nodes.mu.Lock()
	defer w.nodes.mu.Unlock()
	for node, known := range w.nodes.byID {
		if refusal := known.refusals[lane]; refusal.Code != "" && refusal.Code != grid.RefusedNodes && !known.dead {
			all = append(all, string(node)+" "+string(refusal.Code))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
