package top

import (
	"context"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// trialScreen shows one trial with its output.
type trialScreen struct {
	id       grid.TrialID
	sweep    loader[api.Sweep]
	attempts loader[[]api.Attempt]
	explain  loader[api.Explanation]
	log      *logView
	whole    bool // the log fills the whole screen
}

func newTrialScreen(id grid.TrialID) *trialScreen { return &trialScreen{id: id, log: newLogView(id)} }

func (t *trialScreen) name() string { return clean(t.id.String()) }

func (t *trialScreen) topics() []string { return []string{"overview", "trial:" + t.id.String()} }

func (t *trialScreen) refresh(m *Model) tea.Cmd {
	type version struct {
		epoch, attempt, attempts int
		state                    grid.State
	}
	id := t.id
	all := []tea.Cmd{t.sweep.want(m, m.cluster.epoch, func(ctx context.Context, c *api.Client) (api.Sweep, error) {
		return c.Sweeps().Get(ctx, id.Sweep)
	})}
	if t.id.Sweep == api.Last { // api.Last may soon mean another sweep
		if !t.sweep.known {
			return tea.Batch(all...)
		}
		t.id.Sweep = t.sweep.value.Sweep
		t.log.id, id = t.id, t.id
	}
	v := t.now(m)
	if v == nil {
		return tea.Batch(all...)
	}
	now := version{m.cluster.epoch, v.Attempt, v.Attempts, v.State}
	if v.Attempts > 0 || v.State == grid.Running {
		all = append(all, t.attempts.want(m, now, func(ctx context.Context, c *api.Client) ([]api.Attempt, error) {
			return c.Trials().Attempts(ctx, id)
		}))
	}
	switch v.State {
	case grid.Pending:
		all = append(all, t.explain.want(m, now, func(ctx context.Context, c *api.Client) (api.Explanation, error) {
			return c.Trials().Explain(ctx, id)
		}))
	case trialRemoved:
		return tea.Batch(all...)
	}
	if len(t.attempts.value) > 0 {
		// the state now comes from another attempt
		if t.log.attempt == 0 && t.log.out.known && v.Attempt != t.shownAttempt() && v.Attempt > 0 {
			t.pick(0)
		}
		all = append(all, t.log.refresh(m))
	}
	return tea.Batch(all...)
}

// now returns the trial in its current state; nil if nothing is known about it. The last event from
// the stream may be about the trial that was shown before.
func (t *trialScreen) now(m *Model) *api.Trial {
	v := m.cluster.trial
	if v == nil || v.Trial != t.id.String() && (t.id.Sweep != api.Last || v.Index != t.id.Index) {
		return nil
	}
	return v
}

// trialRemoved is the state of a trial whose sweep is no longer kept.
const trialRemoved grid.State = "removed"

// shownAttempt returns the attempt whose output is shown.
func (t *trialScreen) shownAttempt() int {
	if t.log.attempt > 0 || len(t.attempts.value) == 0 {
		return t.log.attempt
	}
	return t.log.of
}

// pick shows the output of an attempt; 0 is the one that determines the trial's state.
func (t *trialScreen) pick(attempt int) {
	text := t.log.search.text
	t.log = newLogView(t.id)
	t.log.attempt, t.log.search.text = attempt, text
}

func (t *trialScreen) keys(m *Model) []binding {
	beside := func(by int64) func() tea.Cmd {
		return func() tea.Cmd {
			n := t.id.Index + by
			if n < 0 || t.sweep.known && n >= t.sweep.value.Count {
				return nil
			}
			m.back()
			return m.open(newTrialScreen(grid.TrialID{Sweep: t.id.Sweep, Index: n}))
		}
	}
	all := slices.Concat(t.log.keys(m), []binding{
		{"o", "show the output on the whole screen, or the trial as well",
			func() tea.Cmd { t.whole = !t.whole; return nil }},
		{"[ ]", "previous trial, next trial", nil}, {"[", "", beside(-1)}, {"]", "", beside(1)},
	})
	if n := len(t.attempts.value); n > 1 {
		all = append(all, binding{"a", "output of another attempt", func() tea.Cmd {
			t.pick(t.shownAttempt()%n + 1)
			return nil
		}})
	}
	if v := t.now(m); v != nil && (v.State == grid.Failed || v.State == grid.Cancelled) {
		all = append(all, binding{"r", "run the trial again", func() tea.Cmd {
			return askSweep(m, t.id.Sweep, "retry", &api.Retry{Index: t.id.Index})
		}})
	}
	return all
}

func (t *trialScreen) view(m *Model, width, height int) []string {
	v := t.now(m)
	if v == nil {
		return absent(m, t.sweep.err, width)
	}
	if v.State == trialRemoved {
		return []string{fit(clean(string(t.id.Sweep))+" has been removed.", width)}
	}
	var out []string
	if !t.whole {
		out = t.head(m, v, width, max(3, height/2))
	}
	if len(t.attempts.value) == 0 {
		return out
	}
	title := m.paint.text(strong, "Output")
	if n := len(t.attempts.value); n > 1 {
		title += fmt.Sprintf(" of attempt %d of %d", max(1, t.shownAttempt()), n)
	}
	if len(out) > 0 {
		out = append(out, "")
	}
	out = append(out, spread(title, t.log.status(m.paint), width))
	return append(out, t.log.view(m, width, height-len(out))...)
}

// head returns what is known about the trial besides its output, in at most this many lines.
func (t *trialScreen) head(m *Model, v *api.Trial, width, lines int) []string {
	facts := []string{m.paint.state(string(v.State))}
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, join(" ", name, value))
		}
	}
	if v.Attempts > 1 {
		add("attempt", fmt.Sprintf("%d of %d", v.Attempt, v.Attempts))
	}
	add("on", clean(string(v.Node)))
	add("started", clockOf(v.Started, m.now()))
	switch {
	case v.Usage.Wall > 0:
		add("took", printable.Seconds(v.Usage.Wall))
	case v.State == grid.Running && v.Started != nil:
		add("for", printable.Seconds(max(0, m.now().Sub(*v.Started).Seconds())))
	}
	if v.Usage.Memory > 0 {
		add("peak memory", bytesText(v.Usage.Memory))
	}
	if v.ExitCode != nil {
		add("exit code", fmt.Sprint(*v.ExitCode))
	}
	add("GPU", clean(strings.Join(v.Devices, " ")))
	out := flow(facts, width)
	if v.Reason != "" {
		t := bad
		if v.State != grid.Failed {
			t = warn
		}
		text := v.Reason
		if v.Class != "" {
			text = string(v.Class) + ": " + text
		}
		for _, line := range strings.Split(text, "\n") {
			out = append(out, wrapped(m.paint, t, line, width, 2)...)
		}
		out = out[:min(len(out), max(2, lines-2))]
	}
	if v.State == grid.Pending && t.explain.known {
		out = append(out, wrapped(m.paint, plain, t.explain.value.Text, width, 2)...)
		for _, n := range t.explain.value.Nodes {
			out = append(out, wrapped(m.paint, faint, join(": ", string(n.Node), n.Text), width, 2)...)
		}
	}
	var values []string
	for _, p := range v.Params {
		values = append(values, clean(p.Key+"="+p.Value.Text))
	}
	out = append(out, flow(values, width)...)
	values = nil
	for _, name := range metricNames(v.Metrics, &t.sweep.value) {
		values = append(values, m.paint.text(strong, clean(name)+"="+metric(v.Metrics[name])))
	}
	out = append(out, flow(values, width)...)
	return slices.DeleteFunc(out[:min(len(out), lines)], func(line string) bool { return line == "" })
}

// metricNames returns the metrics of a trial: the objective first, the others in the order in which
// they appeared in the sweep.
func metricNames(all grid.Metric, s *api.Sweep) []string {
	var names []string
	add := func(name string) {
		if _, ok := all[name]; ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if s.Objective != nil {
		add(s.Objective.Metric)
	}
	for _, name := range s.Metrics {
		add(name)
	}
	rest := []string{}
	for name := range all {
		if !slices.Contains(names, name) {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return append(names, rest...)
}
