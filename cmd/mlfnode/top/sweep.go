package top

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// sweepScreen shows one sweep: its progress, its best trial, and its trials or the causes of
// failures.
type sweepScreen struct {
	id       grid.SweepID
	sweep    loader[api.Sweep]
	best     loader[string]
	failures loader[api.Failures]
	trials   trialList

	onFailures bool
	class      cursor     // of the failures
	chosen     grid.Class // at the cursor, which follows it when the classes change
}

func newSweepScreen(id grid.SweepID) *sweepScreen { return &sweepScreen{id: id} }

func (s *sweepScreen) name() string { return clean(string(s.id)) }

func (s *sweepScreen) topics() []string { return []string{"overview", "sweep:" + string(s.id)} }

// now returns the sweep in its current state; nil if nothing is known about it.
func (s *sweepScreen) now(m *Model) *api.Sweep {
	if !s.sweep.known {
		return nil
	}
	v := withState(s.sweep.value, m.cluster.sweeps[s.id])
	return &v
}

func (s *sweepScreen) refresh(m *Model) tea.Cmd {
	type version struct {
		epoch            int
		state            grid.SweepState
		succeeded, ended int64
		running          int64
	}
	v := version{epoch: m.cluster.epoch}
	if state := m.cluster.sweeps[s.id]; state != nil {
		v.state, v.succeeded, v.ended, v.running = state.State, state.Succeeded, done(&state.SweepCounts), state.Running
	}
	id := s.id
	all := []tea.Cmd{s.sweep.want(m, v, func(ctx context.Context, c *api.Client) (api.Sweep, error) {
		return c.Sweeps().Get(ctx, id)
	})}
	sweep := s.now(m)
	if sweep == nil {
		return tea.Batch(all...)
	}
	id, s.id = sweep.Sweep, sweep.Sweep // it may have been requested as the last one
	if sweep.Succeeded > 0 && (sweep.Objective != nil || len(sweep.Metrics) > 0) {
		all = append(all, s.best.want(m, version{epoch: v.epoch, succeeded: sweep.Succeeded},
			func(ctx context.Context, c *api.Client) (string, error) {
				return bestSoFar(ctx, c, id)
			}))
	}
	if sweep.Failed > 0 {
		all = append(all, s.failures.want(m, version{epoch: v.epoch, ended: sweep.Failed},
			func(ctx context.Context, c *api.Client) (api.Failures, error) {
				return c.Trials().Failures(ctx, id)
			}))
	}
	all = append(all, s.trials.refresh(m, sweep, v))
	return tea.Batch(all...)
}

// bestSoFar describes the best trial, in the words of the master.
func bestSoFar(ctx context.Context, c *api.Client, id grid.SweepID) (string, error) {
	body, err := c.Trials().Chart(ctx, id, "history", nil)
	var chart struct{ Sentence string }
	if err == nil {
		err = json.Unmarshal(body, &chart)
	}
	return chart.Sentence, err
}

func (s *sweepScreen) keys(m *Model) []binding {
	sweep := s.now(m)
	if sweep == nil {
		return nil
	}
	all := []binding{{movesHelp, "move", nil},
		{"tab", "trials or failures by class", func() tea.Cmd { s.onFailures = !s.onFailures; return nil }},
		{"1", "", func() tea.Cmd { s.onFailures = false; return nil }},
		{"2", "", func() tea.Cmd { s.onFailures = true; return nil }}}
	groups := s.failures.value.Groups
	if s.onFailures {
		if sweep.Failed == 0 || len(groups) == 0 {
			return slices.Concat(all, sweepActions(m, sweep, ""))
		}
		class := s.group().Class
		all = append(all, binding{"enter l right", "list the trials of the class", func() tea.Cmd {
			s.onFailures = false
			s.trials.set("class="+string(class), api.TrialQuery{Class: class})
			return nil
		}})
		return slices.Concat(all, sweepActions(m, sweep, class),
			s.class.moves(len(groups), func() { s.chosen = groups[s.class.at].Class }))
	}
	return slices.Concat(all, s.trials.keys(m, sweep), sweepActions(m, sweep, ""))
}

// group puts the cursor on the chosen class of failures and returns that, or nil if there is none.
func (s *sweepScreen) group() *api.FailureGroup {
	groups := s.failures.value.Groups
	if len(groups) == 0 {
		return nil
	}
	if i := slices.IndexFunc(groups, func(g api.FailureGroup) bool { return g.Class == s.chosen }); i >= 0 {
		s.class.at = i
	}
	s.class.at = max(0, min(s.class.at, len(groups)-1))
	s.chosen = groups[s.class.at].Class
	return &groups[s.class.at]
}

func (s *sweepScreen) view(m *Model, width, height int) []string {
	v := s.now(m)
	if v == nil {
		return absent(m, s.sweep.err, width)
	}
	if v.State == sweepRemoved {
		return []string{fit(clean(string(s.id))+" has been removed.", width)}
	}
	out := append(problemOf(m, s.sweep.err, width), s.head(m, v, width)...)
	failures := "Failures"
	if v.Failed > 0 {
		classes := plural(int64(len(s.failures.value.Groups)), "class")
		failures = fmt.Sprintf("Failures %s in %s", count(v.Failed), classes)
	}
	tabs := [2]string{"Trials", failures}
	if s.onFailures {
		tabs[1] = m.paint.text(strong, "["+tabs[1]+"]")
	} else {
		tabs[0] = m.paint.text(strong, "["+tabs[0]+"]")
	}
	title := join("  ", tabs[:]...)
	out = append(out, "")
	if s.onFailures {
		return append(append(out, fit(title, width)), s.failureTable(m, v, width, height-len(out)-1)...)
	}
	out = append(out, spread(title, m.paint.text(faint, s.trials.summary()), width))
	return append(out, s.trials.view(m, v, width, height-len(out))...)
}

// absent explains why there is nothing to show.
func absent(m *Model, err error, width int) []string {
	if err != nil {
		return wrapped(m.paint, bad, clean(reason(err)), width, 3)
	}
	return []string{m.paint.text(faint, m.cluster.waiting())}
}

func (s *sweepScreen) head(m *Model, v *api.Sweep, width int) []string {
	p := m.paint
	facts := []string{p.state(string(v.State)), clean(join(" · ", v.Project, v.Task, v.Name))}
	out := flow(facts, width)
	share := percent(done(&v.SweepCounts), v.Count)
	out = append(out, p.bar(&v.SweepCounts, max(3, width-len(share)-1))+" "+share)
	counts := []string{}
	for _, of := range []struct {
		state string
		n     int64
	}{
		{string(grid.Succeeded), v.Succeeded}, {string(grid.Failed), v.Failed}, {string(grid.Running), v.Running},
		{string(grid.Pending), v.Pending},
		{stoppedEarly, v.Stopped}, {string(grid.Cancelled), v.OnlyCancelled()},
	} {
		if of.n > 0 {
			sign, t := look(of.state)
			counts = append(counts, p.text(t, sign)+" "+count(of.n)+" "+of.state)
		}
	}
	counts = append(counts, "of "+count(v.Count))
	for _, more := range []string{rateOf(m, v), endsAt(m, v)} {
		if more != "" {
			counts = append(counts, more)
		}
	}
	if v.Ended != nil {
		counts = append(counts, "ended "+clockOf(v.Ended, m.now()))
	}
	out = append(out, flow(counts, width)...)
	if s.best.known {
		out = append(out, wrapped(p, strong, s.best.value, width, 2)...)
	}
	if v.Problem != "" {
		out = append(out, wrapped(p, warn, "Nothing runs: "+v.Problem, width, 2)...)
	}
	if v.Waits != "" {
		out = append(out, wrapped(p, warn, v.Waits, width, 3)...)
	}
	return out
}

// endsAt describes how long a sweep will still run, and until when.
func endsAt(m *Model, s *api.Sweep) string {
	if ends(s) == "" {
		return ""
	}
	at := m.now().Add(time.Duration(*s.ETA * float64(time.Second)))
	return ends(s) + ", ends " + strings.TrimSuffix(clock(at, m.now()), at.Format(":05"))
}

func (s *sweepScreen) failureTable(m *Model, v *api.Sweep, width, height int) []string {
	groups := s.failures.value.Groups
	switch {
	case v.Failed == 0:
		return []string{m.paint.text(faint, "Nothing has failed.")}
	case !s.failures.known:
		return absent(m, s.failures.err, width)
	}
	columns := []column{{head: "trials", right: true}, {head: "class"}, {head: "cause", rank: 1},
		{head: "owner", rank: 2}, {head: "for example", rank: 3}}
	g, problem := s.group(), problemOf(m, s.failures.err, width)
	from, to := s.class.window(len(groups), max(1, height-6-len(problem)))
	var cells [][]string
	for i := range groups[from:to] {
		g := &groups[from+i]
		cells = append(cells, []string{count(g.Count), clean(string(g.Class)), clean(g.Cause), clean(g.Owner),
			clean(g.Trial)})
	}
	out := append(problem, m.paint.table(width, columns, cells, s.class.at-from, nil)...)
	if g == nil {
		return out
	}
	out = append(out, "")
	if g.Hint != "" {
		out = append(out, wrap(clean("Hint: "+g.Hint), width, 2)...)
	}
	return append(out, wrapped(m.paint, faint, g.Trial+": "+g.Reason, width, 2)...)
}
