package top

import (
	"context"
	"fmt"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"mlfnode/grid"
	"mlfnode/node/api"
)

const (
	followSoon = 500 * time.Millisecond // the interval between requests while output arrives
	hitsKept   = 20 * api.MaxHits       // of one search
	followLate = 3 * time.Second        // the longest interval; it grows while nothing arrives
)

// logView shows the output of an attempt: it follows the end, or stays where the user scrolled.
type logView struct {
	id      grid.TrialID
	attempt int // 0 is the attempt that determines the trial's state
	of      int // the attempt that printed the output
	out     output
	err     error
	top     int // line at the top of the window, unless it follows the end
	shift   int // columns that are scrolled out of view
	follow  bool
	height  int

	busy   bool
	wait   time.Duration // before the next request for new output
	epoch  int           // at the last request
	goal   *api.LogHit   // where to scroll
	text   string        // the text to search for
	hits   []api.LogHit
	more   *int64 // where to continue the search
	hit    int    // the index of the chosen one
	asking int    // the number of the search in progress; 0 for none
	asked  int    // searches so far
}

func newLogView(id grid.TrialID) *logView { return &logView{id: id, follow: true} }

// refresh requests the end of the output, the output before or after the range, or the place where
// the user wants to go. Only one request is in progress at a time.
func (l *logView) refresh(m *Model) tea.Cmd {
	o := &l.out
	if l.busy || !m.cluster.lost.IsZero() || m.frozen && o.known && l.follow {
		return nil
	}
	q := api.WindowQuery{Attempt: l.attempt, Limit: logWindow}
	wait := time.Duration(0)
	var take func(*api.LogWindow)
	switch {
	case l.goal != nil:
		goal := *l.goal
		l.goal = nil
		if goal.Offset >= o.from && goal.Offset < o.next {
			l.show(&goal)
			return nil
		}
		q.Offset = max(0, goal.Offset-logWindow/2)
		take = func(w *api.LogWindow) { o.replace(w); l.show(&goal) }
	case !o.known, l.follow && o.total-o.next > logBehind:
		q.Tail = logWindow
		take = o.replace
	case !l.follow && l.top < l.height && o.from > o.first:
		q.Offset = max(0, o.from-logWindow)
		q.Limit = o.from - q.Offset
		take = l.earlier
	case o.next < o.total && (l.follow || l.top+2*l.height >= len(o.lines)):
		q.Offset = o.next
		take = l.later
	case !m.frozen && (!o.ended || l.epoch != m.cluster.epoch):
		q.Offset, wait = o.next, l.wait
		take = l.later
	default:
		return nil
	}
	if l.busy, l.epoch = true, m.cluster.epoch; l.err != nil {
		wait = followLate
	}
	id := l.id
	return m.ask(wait, func(ctx context.Context, c *api.Client) answer {
		w, err := c.Logs().Window(ctx, id, q)
		return func() tea.Cmd {
			l.busy = false
			if l.err = err; err == nil {
				l.of = w.Attempt
				take(&w)
			}
			return nil
		}
	})
}

func (l *logView) later(w *api.LogWindow) {
	at := l.anchor()
	if l.out.appendWindow(w) {
		l.wait = followSoon
	} else {
		l.wait = min(followLate, l.wait*3/2+followSoon/2)
	}
	l.top = l.out.lineAt(at, "")
}

func (l *logView) earlier(w *api.LogWindow) {
	at := l.anchor()
	l.out.prependWindow(w)
	l.top = l.out.lineAt(at, "")
}

// anchor returns the offset of the line at the top.
func (l *logView) anchor() int64 {
	if l.top < len(l.out.lines) {
		return l.out.lines[l.top].offset
	}
	return l.out.next
}

// show scrolls to a hit.
func (l *logView) show(h *api.LogHit) {
	l.follow = false
	l.top = max(0, l.out.lineAt(h.Offset, h.Stream)-l.height/2)
	l.clamp()
}

func (l *logView) clamp() { l.top = max(0, min(l.top, len(l.out.lines)-l.height)) }

// scroll scrolls by some lines. At the end it follows the output again.
func (l *logView) scroll(by int) {
	if l.follow {
		l.top = len(l.out.lines) - l.height
	}
	l.top += by
	l.clamp()
	l.follow = by > 0 && l.top >= len(l.out.lines)-l.height && l.out.next >= l.out.total
}

// toStart scrolls to the beginning of the output.
func (l *logView) toStart() {
	l.follow, l.top = false, 0
	l.goal = &api.LogHit{}
}

func (l *logView) keys(m *Model) []binding {
	by := func(lines func() int) func() tea.Cmd {
		return func() tea.Cmd { l.scroll(lines()); return nil }
	}
	all := []binding{
		{movesHelp, "scroll", nil},
		{"f", "follow the end, or stop", func() tea.Cmd {
			if l.follow = !l.follow; !l.follow {
				l.top = len(l.out.lines) - l.height
				l.clamp()
			}
			return nil
		}},
		{"/", "search all that was printed", func() tea.Cmd {
			m.prompt = &prompt{label: "find ", text: l.text, done: func(text string) tea.Cmd { return l.find(m, text) }}
			return nil
		}},
		{"left right", "scroll long lines", nil},
		{"left h", "", func() tea.Cmd { l.shift = max(0, l.shift-m.width/2); return nil }},
		{"right l", "", func() tea.Cmd { l.shift = min(l.shift+m.width/2, logLine); return nil }},
		{"j down enter", "", by(func() int { return 1 })}, {"k up", "", by(func() int { return -1 })},
		{"pgdown ctrl+f", "", by(func() int { return max(1, l.height-1) })}, {"pgup ctrl+b", "", by(func() int { return -max(1, l.height-1) })},
		{"g home", "", func() tea.Cmd { l.toStart(); return nil }},
		{"G end", "", func() tea.Cmd { l.follow = true; return nil }},
	}
	if l.asking > 0 {
		all = append(all, binding{"esc", "end the search", func() tea.Cmd { l.asking = 0; return nil }})
	}
	if len(l.hits) > 0 || l.more != nil {
		all = append(all, binding{"n N", "next hit, hit before", nil},
			binding{"n", "", func() tea.Cmd { return l.step(m, 1) }}, binding{"N", "", func() tea.Cmd { return l.step(m, -1) }})
	}
	return all
}

// find searches for a text from the beginning, and goes to the first hit below the top of the
// window.
func (l *logView) find(m *Model, text string) tea.Cmd {
	l.text, l.hits, l.more, l.hit, l.asking = text, nil, nil, 0, 0
	if text == "" {
		return nil
	}
	return l.search(m, 0, l.anchor())
}

// search makes the master search one part of the output after another, starting at an offset, until
// there are hits. It goes to the first hit that is not before another offset.
func (l *logView) search(m *Model, from, notBefore int64) tea.Cmd {
	l.asked++
	l.asking, l.more = l.asked, &from
	return l.searchOn(m, l.asked, notBefore)
}

// searchOn requests the hits in one part, for the search with this number.
func (l *logView) searchOn(m *Model, number int, notBefore int64) tea.Cmd {
	text, id, attempt, from := l.text, l.id, l.attempt, *l.more
	return m.ask(0, func(ctx context.Context, c *api.Client) answer {
		all, err := c.Logs().Search(ctx, id, attempt, text, from)
		return func() tea.Cmd {
			if number != l.asking { // it has ended, or another search has begun
				return nil
			}
			if err != nil { // n continues from here
				l.asking = 0
				m.notice = clean(reason(err))
				return nil
			}
			l.more = all.Next
			if len(all.Hits) == 0 && all.Next != nil && *all.Next > from {
				return l.searchOn(m, number, notBefore)
			}
			l.asking = 0
			l.hits = append(l.hits, all.Hits...)
			l.hits = l.hits[max(0, len(l.hits)-hitsKept):]
			if i := slices.IndexFunc(l.hits, func(h api.LogHit) bool { return h.Offset >= notBefore }); i >= 0 {
				l.hit = i
			}
			l.hit = max(0, min(l.hit, len(l.hits)-1))
			if len(l.hits) > 0 {
				l.goal = &l.hits[l.hit]
			}
			return nil
		}
	})
}

// step scrolls to the next or previous hit, and continues the search after the last one.
func (l *logView) step(m *Model, by int) tea.Cmd {
	switch {
	case l.more != nil && l.asking == 0 && len(l.hits) == 0:
		return l.search(m, *l.more, l.anchor())
	case l.more != nil && l.asking == 0 && l.hit+by >= len(l.hits):
		return l.search(m, *l.more, l.hits[l.hit].Offset+1)
	case len(l.hits) > 0:
		l.hit = (l.hit + by + len(l.hits)) % len(l.hits)
		l.goal = &l.hits[l.hit]
	}
	return nil
}

// status describes which part of the output is visible.
func (l *logView) status(p paint) string {
	o := &l.out
	parts := []string{}
	switch {
	case l.asking > 0:
		parts = append(parts, "searching … "+percent(*l.more, o.total))
	case l.text != "" && len(l.hits) == 0 && l.more != nil:
		parts = append(parts, "searched "+percent(*l.more, o.total))
	case l.text != "" && len(l.hits) == 0:
		parts = append(parts, "no "+clean(l.text))
	case l.text != "":
		more := ""
		if l.more != nil {
			more = "+"
		}
		parts = append(parts, fmt.Sprintf("hit %d of %d%s", l.hit+1, len(l.hits), more))
	}
	if o.cut > 0 {
		parts = append(parts, bytesText(o.cut)+" cut")
	}
	switch o.gone {
	case api.PartGone:
		parts = append(parts, "the beginning has been removed")
	case api.AllGone:
		parts = append(parts, "removed")
	}
	parts = append(parts, bytesText(o.total))
	switch {
	case l.follow && !o.ended:
		parts = append(parts, p.text(running, "● following"))
	case l.follow:
		parts = append(parts, "end")
	case o.total > 0 && l.top < len(o.lines):
		parts = append(parts, percent(o.lines[l.top].offset, o.total))
	}
	return join(" · ", parts...)
}

func (l *logView) view(m *Model, width, height int) []string {
	o := &l.out
	l.height = max(height, 1)
	switch {
	case !o.known:
		return absent(m, l.err, width)
	case len(o.lines) == 0 && o.gone == api.AllGone:
		return []string{m.paint.text(faint, fit("The output has been removed, because all output was over retention.logs.", width))}
	case len(o.lines) == 0:
		return []string{m.paint.text(faint, "Nothing has been printed.")}
	}
	top := l.top
	if l.follow {
		top = len(o.lines) - l.height
	}
	top = max(0, min(top, len(o.lines)-1))
	var out []string
	for i := top; i < min(len(o.lines), top+l.height); i++ {
		out = append(out, l.line(m.paint, &o.lines[i], width))
	}
	return out
}

// line formats a line, with a mark if it is not standard output.
func (l *logView) line(p paint, line *outputLine, width int) string {
	mark, t := "  ", plain
	switch line.stream {
	case "stderr":
		mark, t = "! ", warn
	case "setup":
		mark, t = "+ ", faint
	}
	text := ansi.Cut(clean(string(line.text)), l.shift, l.shift+width-len(mark))
	out := p.text(t, mark)
	for i, part := range found(text, l.text) {
		if i%2 == 1 {
			out += p.text(hit, part)
		} else {
			out += part
		}
	}
	return out
}
