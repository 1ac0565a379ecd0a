package top

import (
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"mlfnode/node/api"
)

// View implements tea.Model.
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(m.frame(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "mlfnode " + m.shown().name()
	return v
}

// frame returns the lines of the screen: no more than fit on it, and none wider than it.
func (m *Model) frame() []string {
	width, height := max(m.width, 1), max(m.height, 1)
	top := m.head(width)
	bottom := m.foot(width)
	room := max(0, height-len(top)-len(bottom))
	var body []string
	switch {
	case m.dialog != nil:
		body = m.dialog.view(m.paint, width)
	case m.help:
		body = helpView(m.paint, m.bindings(), width, room)
	default:
		body = m.shown().view(m, width, room)
	}
	if len(body) > room {
		body = body[:room]
	}
	for len(body) < room {
		body = append(body, "")
	}
	out := append(append(top, body...), bottom...)
	if len(out) > height {
		out = out[:height]
	}
	for i := range out {
		out[i] = fit(out[i], width)
	}
	return out
}

// head describes where the user is and how the node is reached.
func (m *Model) head(width int) []string {
	p, c := m.paint, &m.cluster
	path := p.text(strong, "mlfnode")
	for _, s := range m.screens {
		if s != m.screens[0] || len(m.screens) == 1 {
			path += " ▸ " + s.name()
		}
	}
	dot := p.text(good, "●") + " live"
	switch {
	case m.frozen:
		dot = p.text(warn, "‖") + " paused"
	case !c.lost.IsZero():
		dot = p.text(bad, "✕") + " disconnected"
	case c.heard.IsZero():
		dot = p.text(faint, "○") + " connecting"
	}
	if c.role.known && c.role.value == api.RoleViewer {
		dot += p.text(faint, " · viewer")
	}
	out := []string{spread(path, dot, width)}
	switch {
	case !c.lost.IsZero():
		text := "The node has been unreachable since " + clock(c.lost, m.now()) + ". "
		if !c.heard.IsZero() {
			text += "Showing the last known state; reconnecting."
		} else {
			text += "Reconnecting."
		}
		out = append(out, wrapped(p, bad, text, width, 3)...)
		if c.stream.why != "" {
			out = append(out, p.text(faint, fit(clean(c.stream.why), width)))
		}
	case c.stream.gone:
		out = append(out, wrapped(p, warn, c.stream.why, width, 2)...)
	}
	return append(out, "")
}

// foot returns the last action, what is being typed, or the keys.
func (m *Model) foot(width int) []string {
	switch {
	case m.prompt != nil && m.dialog == nil:
		return []string{m.prompt.view(m.paint, width)}
	case m.notice != "":
		return []string{m.paint.text(warn, fit(m.notice, width))}
	case m.dialog != nil:
		return []string{""}
	case m.help:
		return []string{m.paint.text(faint, "any key goes back")}
	}
	var keys []string
	for _, b := range m.shown().keys(m) {
		if b.text == "" || b.keys == movesHelp {
			continue
		}
		key, more, _ := strings.Cut(b.keys, " ")
		if b.do == nil { // two keys that belong together
			key += " " + more
		}
		word, _, _ := strings.Cut(b.text, ":")
		word, _, _ = strings.Cut(word, ",")
		keys = append(keys, key+" "+word)
	}
	last := "? keys  q quit"
	line := ""
	for _, k := range keys {
		if next := join("  ", line, k); ansi.StringWidth(next)+ansi.StringWidth(last)+2 <= width {
			line = next
		}
	}
	return []string{m.paint.text(faint, fit(join("  ", line, last), width))}
}

// helpView lists keys with what they do.
func helpView(p paint, bindings []binding, width, height int) []string {
	type entry struct{ keys, text string }
	var all []entry
	widest := 0
	for _, b := range bindings {
		if b.text == "" {
			continue
		}
		e := entry{b.keys, b.text}
		if b.keys != movesHelp {
			e.keys = strings.Join(strings.Fields(b.keys), ", ")
		}
		all = append(all, e)
		widest = min(max(widest, ansi.StringWidth(e.keys)), max(8, width/3))
	}
	var out []string
	for _, e := range all {
		for i, line := range wrap(e.text, width-widest-2, 3) {
			key := ""
			if i == 0 {
				key = fit(e.keys, widest)
			}
			out = append(out, p.text(strong, pad(key, widest, false))+"  "+line)
		}
	}
	return out[:min(len(out), height)]
}
