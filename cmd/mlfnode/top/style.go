package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// tone is the kind of a piece of text, which determines its look. Signs and words carry the same
// information, so nothing depends on colours.
type tone int

const (
	plain tone = iota
	strong
	faint
	running
	good
	bad
	odd // cancelled
	warn
	chosen // the row that keys apply to
	hit    // the text that was searched for
)

// paint makes text look like what it is.
type paint struct{ colours bool }

// sequences are the SGR parameters, from the sixteen colours that every user can configure.
var sequences = map[tone]string{strong: "1", faint: "2", running: "94", good: "32", bad: "31", odd: "35", warn: "33",
	chosen: "7", hit: "7"}

// text returns text in a tone. Without colours only strong, chosen and found text looks different.
func (p paint) text(t tone, s string) string {
	if s == "" || t == plain || !p.colours && t != strong && t != chosen && t != hit {
		return s
	}
	return "\x1b[" + sequences[t] + "m" + s + "\x1b[m"
}

// clean makes text from a program, a user or another machine safe to show, on one line.
func clean(s string) string {
	return strings.ReplaceAll(printable.Line([]byte(strings.ReplaceAll(s, "\n", " "))), "\t", " ")
}

// fit truncates a line to a width.
func fit(s string, width int) string { return ansi.Truncate(s, max(width, 0), "…") }

// pad pads a line to a width, on the left if right is set.
func pad(s string, width int, right bool) string {
	space := strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
	if right {
		return space + s
	}
	return s + space
}

// spread puts two texts at the ends of a line. If there is not enough room for both, the left one
// is truncated and the right one stays.
func spread(left, right string, width int) string {
	room := width - ansi.StringWidth(right) - 1
	if room < width/2 && ansi.StringWidth(left) > room {
		return fit(left, width)
	}
	return pad(fit(left, room), room, false) + " " + right
}

// join joins the texts that are not empty.
func join(gap string, parts ...string) string {
	kept := parts[:0:0]
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, gap)
}

// wrap wraps a text to a width, in at most this many lines.
func wrap(s string, width, lines int) []string {
	all := strings.Split(ansi.Wrap(s, max(width, 1), ""), "\n")
	if len(all) > lines {
		all = all[:lines]
		all[lines-1] = fit(all[lines-1]+"…", width)
		if !strings.HasSuffix(all[lines-1], "…") {
			all[lines-1] = fit(all[lines-1], width-1) + "…"
		}
	}
	return all
}

// stoppedEarly is the label of cancelled trials that did worse than others.
const stoppedEarly = "stopped early"

// look returns the sign and the tone of a state of a trial, a sweep or a node.
func look(state string) (sign string, t tone) {
	switch state {
	case string(grid.Running):
		return "▶", running
	case string(grid.Succeeded):
		return "✓", good
	case string(grid.Failed):
		return "✕", bad
	case string(grid.Cancelled):
		return "⊘", odd
	case stoppedEarly:
		return "⊖", odd
	case string(grid.Pending):
		return "·", faint
	case string(grid.SweepPaused):
		return "‖", warn
	case string(grid.SweepFinished):
		return "■", good
	case "alive":
		return "●", good
	case "drained":
		return "◌", warn
	case "quarantined":
		return "⊗", bad
	case "suspect":
		return "?", warn
	case "dead":
		return "✕", bad
	}
	return "–", faint
}

// state shows a state with its sign.
func (p paint) state(s string) string {
	sign, t := look(s)
	return p.text(t, sign+" "+s)
}

// nodeState returns the state of a node as trials see it.
func nodeState(m *api.Member) string {
	switch {
	case m.State != "alive":
		return m.State
	case m.Quarantined:
		return "quarantined"
	case m.Drained:
		return "drained"
	}
	return m.State
}

// bar shows the progress of a sweep: what succeeded, what failed, what was stopped early, what was
// cancelled, what runs.
func (p paint) bar(s *api.SweepCounts, width int) string {
	if s.Count == 0 || width < 3 {
		return ""
	}
	cells := func(n int64) int { return int(float64(n) / float64(s.Count) * float64(width)) }
	ok := cells(s.Succeeded)
	failed := cells(s.Succeeded+s.Failed) - ok
	stopped := cells(s.Succeeded+s.Failed+s.Stopped) - ok - failed
	off := cells(s.Succeeded+s.Failed+s.Cancelled) - ok - failed - stopped
	left := width - ok - failed - stopped - off
	now := min(left, cells(s.Running))
	if s.Running > 0 && now == 0 && left > 0 {
		now = 1
	}
	return p.text(good, strings.Repeat("█", ok)) + p.text(bad, strings.Repeat("▓", failed)) +
		p.text(odd, strings.Repeat("▞", stopped)+strings.Repeat("▚", off)) +
		p.text(running, strings.Repeat("▒", now)) + p.text(faint, strings.Repeat("░", left-now))
}
