package top

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// sweepActions are the keys that change a sweep. If class is set, retrying only repeats the failed
// trials of this class.
func sweepActions(m *Model, s *api.Sweep, class grid.Class) []binding {
	id, state := s.Sweep, s.State
	all := []binding{}
	if state == grid.SweepRunning {
		all = append(all, binding{"p", "pause the sweep", func() tea.Cmd { return askSweep(m, id, "pause", nil) }})
	}
	if state == grid.SweepPaused {
		all = append(all, binding{"p", "resume the sweep", func() tea.Cmd { return askSweep(m, id, "resume", nil) }})
	}
	if s.Failed > 0 {
		text := "run the failed trials again"
		if class != "" {
			text = "run the failed trials of the class again"
		}
		all = append(all, binding{"r", text, func() tea.Cmd {
			return askSweep(m, id, "retry", &api.Retry{Index: -1, FailedOnly: true, Class: class})
		}})
	}
	if state == grid.SweepRunning || state == grid.SweepPaused {
		all = append(all, binding{"X", "cancel the sweep", func() tea.Cmd { return askSweep(m, id, "cancel", nil) }})
	}
	return all
}

// askSweep asks the node how many trials an action would change, and then asks the user to confirm
// it, unless a key has been pressed in between.
func askSweep(m *Model, id grid.SweepID, action string, retry *api.Retry) tea.Cmd {
	if !mayAct(m) {
		return nil
	}
	var body any
	if retry != nil {
		body = retry
	}
	m.notice = "counting …"
	asked := m.presses
	return m.ask(0, func(ctx context.Context, c *api.Client) answer {
		done, err := c.Sweeps().Preview(ctx, id, action, body)
		return func() tea.Cmd {
			if m.presses != asked { // the user has moved on, and the next key may be meant for something else
				return nil
			}
			m.notice = ""
			if err != nil {
				m.notice = clean(reason(err))
				return nil
			}
			m.dialog = confirm(m, &done, action, retry)
			return nil
		}
	})
}

// confirm returns the question to ask before an action on a sweep.
func confirm(m *Model, preview *api.Done, action string, retry *api.Retry) *dialog {
	s := &preview.Sweep
	name := clean(string(s.Sweep))
	d := &dialog{title: strings.ToUpper(action[:1]) + action[1:] + " " + name + "?", verb: action}
	var request func(ctx context.Context, c *api.Client, on bool) (api.Done, error)
	said := func(after *api.Done) string { return fmt.Sprintf("%s is %s", name, after.Sweep.State) }
	switch action {
	case "pause":
		d.text = plural(s.Pending, "pending trial") + " will wait."
		if s.Running > 0 {
			d.text += fmt.Sprintf(" Running trials (%s) will finish.", count(s.Running))
			d.option = "also stop running trials; they run again later"
		}
		request = func(ctx context.Context, c *api.Client, on bool) (api.Done, error) {
			if on {
				return c.Sweeps().Kill(ctx, s.Sweep)
			}
			return c.Sweeps().Pause(ctx, s.Sweep)
		}
	case "resume":
		d.text = plural(s.Pending, "pending trial") + " may start."
		request = func(ctx context.Context, c *api.Client, _ bool) (api.Done, error) {
			return c.Sweeps().Resume(ctx, s.Sweep)
		}
	case "cancel":
		d.text = fmt.Sprintf("Running trials (%s) will be stopped, and %s will not run. Results stay.",
			count(s.Running), plural(s.Pending, "pending trial"))
		if s.Running > 0 {
			d.option = "let running trials save their state first"
		}
		request = func(ctx context.Context, c *api.Client, on bool) (api.Done, error) {
			return c.Sweeps().Cancel(ctx, s.Sweep, on)
		}
	case "retry":
		if retry.Index >= 0 {
			name = fmt.Sprintf("%s/%d", name, retry.Index)
		}
		trials := plural(preview.Changed, "trial")
		if retry.Class != "" {
			trials += " of class " + clean(string(retry.Class))
		}
		d.title = fmt.Sprintf("Run %s of %s again?", trials, name)
		d.text = "They get a new attempt; the old ones stay in the history."
		request = func(ctx context.Context, c *api.Client, _ bool) (api.Done, error) {
			return c.Sweeps().Retry(ctx, s.Sweep, *retry)
		}
		said = func(after *api.Done) string {
			return plural(after.Changed, "trial") + " of " + name + " will run again"
		}
	}
	d.run = func(on bool, _ string) tea.Cmd {
		return act(m, func(ctx context.Context, c *api.Client) (string, error) {
			after, err := request(ctx, c, on)
			return said(&after), err
		})
	}
	return d
}

// act performs an action, shows its result, and reloads what is shown.
func act(m *Model, do func(context.Context, *api.Client) (string, error)) tea.Cmd {
	return m.ask(0, func(ctx context.Context, c *api.Client) answer {
		said, err := do(ctx, c)
		return func() tea.Cmd {
			if m.notice = said; err != nil {
				m.notice = clean(reason(err))
			}
			m.cluster.epoch++
			return nil
		}
	})
}

// nodeActions are the keys that change a node.
func nodeActions(m *Model, n *api.Member) []binding {
	node := n.Node
	if n.Drained || n.Quarantined {
		return []binding{{"d", "let the node take trials again", func() tea.Cmd {
			if !mayAct(m) {
				return nil
			}
			m.dialog = &dialog{title: "Let " + clean(string(node)) + " take trials again?", text: clean(n.Reason),
				verb: "undrain", run: func(bool, string) tea.Cmd {
					return act(m, func(ctx context.Context, c *api.Client) (string, error) {
						return clean(string(node)) + " takes trials again", c.Members().Undrain(ctx, node)
					})
				}}
			return nil
		}}}
	}
	return []binding{{"d", "give the node no more trials (drain)", func() tea.Cmd {
		if !mayAct(m) {
			return nil
		}
		m.dialog = &dialog{
			title: "Drain " + clean(string(node)) + "?", verb: "drain", input: &prompt{label: "reason: "},
			text: fmt.Sprintf("It takes no more trials. Running trials (%d) will finish.", n.Running),
			run: func(_ bool, why string) tea.Cmd {
				return act(m, func(ctx context.Context, c *api.Client) (string, error) {
					return clean(string(node)) + " takes no more trials", c.Members().Drain(ctx, node, why)
				})
			},
		}
		return nil
	}}}
}

// mayAct reports whether the user may act, and shows a message if not.
func mayAct(m *Model) bool {
	if r := &m.cluster.role; r.known && r.value == api.RoleViewer {
		m.notice = "a viewer's token is read-only; to act, get one with: mlfnode token --role operator"
		return false
	}
	return true
}
