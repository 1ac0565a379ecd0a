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
	scroll
	search logSearch
	goal   *api.LogHit // where to scroll

	busy  bool
	wait  time.Duration // before the next request for new output
	epoch int           // at the last request
}

func newLogView(id grid.TrialID) *logView { return &logView{id: id, scroll: scroll{follow: true}} }

// scroll is the part of the lines that is visible.
type scroll struct {
	top    int // line at the top of the window, unless it follows the end
	shift  int // columns that are scrolled out of view
	height int
	follow bool
}

// logSearch is a search in the output.
type logSearch struct {
	text   string
	hits   []api.LogHit
	hit    int    // the index of the chosen one
	more   *int64 // where to continue; nil after everything has been searched
	asking int    // the number of the request in progress; 0 for none
	asked  int    // requests so far
}

// refresh requests the end of the output, the output before or after the range, or the place where
// the user wants to go. Only one request is in progress at a time.
func (l *logView) refresh(m *Model) tea.Cmd {
	o := &l.out
	if l.busy || !m.cluster.lost.IsZero() || m.frozen && o.known && l.follow {
		return nil
	}
	q := api.WindowQuery{Attempt: l.attempt, Limit: logWindow}
	wait := time.Duration(0)
	var apply func(*api.LogWindow)
	switch {
	case l.goal != nil:
		goal := *l.goal
		l.goal = nil
		if goal.Offset >= o.from && goal.Offset < o.next {
			l.show(&goal)
			return nil
		}
		q.Offset = max(0, goal.Offset-logWindow/2)
		apply = func(w *api.LogWindow) { o.replace(w); l.show(&goal) }
	case !o.known, l.follow && o.total-o.next > logBehind:
		q.Tail = logWindow
		apply = o.replace
	case !l.follow && l.top < l.height && o.from > o.first:
		q.Offset = max(0, o.from-logWindow)
		q.Limit = o.from - q.Offset
		apply = func(w *api.LogWindow) {
			at := l.anchor()
			o.prependWindow(w)
			l.top = o.lineAt(at, "")
		}
	case o.next < o.total && (l.follow || l.top+2*l.height >= len(o.lines)):
		q.Offset = o.next
		apply = l.later
	case !m.frozen && (!o.ended || l.epoch != m.cluster.epoch):
		q.Offset, wait = o.next, l.wait
		apply = l.later
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
				apply(&w)
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

// clamp moves the window to where there are lines.
func (l *logView) clamp() { l.top = max(0, min(l.top, len(l.out.lines)-l.height)) }

// scrollBy scrolls by some lines. At the end it follows the output again.
func (l *logView) scrollBy(by int) {
	lines := len(l.out.lines)
	if l.follow {
		l.top = lines - l.height
	}
	l.top += by
	l.clamp()
	l.follow = by > 0 && l.top >= lines-l.height && l.out.next >= l.out.total
}

func (l *logView) keys(m *Model) []binding {
	by := func(lines func() int) func() tea.Cmd {
		return func() tea.Cmd { l.scrollBy(lines()); return nil }
	}
	search := &l.search
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
			m.prompt = &prompt{label: "find ", text: search.text, done: func(text string) tea.Cmd {
				*search = logSearch{text: text, asked: search.asked}
				if text == "" {
					return nil
				}
				return l.startSearch(m, 0, l.anchor())
			}}
			return nil
		}},
		{"left right", "scroll long lines", nil},
		{"left h", "", func() tea.Cmd { l.shift = max(0, l.shift-m.width/2); return nil }},
		{"right l", "", func() tea.Cmd { l.shift = min(l.shift+m.width/2, logLine); return nil }},
		{"j down enter", "", by(func() int { return 1 })}, {"k up", "", by(func() int { return -1 })},
		{"pgdown ctrl+f", "", by(func() int { return max(1, l.height-1) })},
		{"pgup ctrl+b", "", by(func() int { return -max(1, l.height-1) })},
		{"g home", "", func() tea.Cmd {
			l.follow, l.top = false, 0
			l.goal = &api.LogHit{}
			return nil
		}},
		{"G end", "", func() tea.Cmd { l.follow = true; return nil }},
	}
	if search.asking > 0 {
		all = append(all, binding{"esc", "end the search", func() tea.Cmd { search.asking = 0; return nil }})
	}
	if len(search.hits) > 0 || search.more != nil {
		all = append(all, binding{"n N", "next hit, previous hit", nil},
			binding{"n", "", func() tea.Cmd { return l.step(m, 1) }},
			binding{"N", "", func() tea.Cmd { return l.step(m, -1) }})
	}
	return all
}

// startSearch makes the master search one part of the output after another, starting at an offset,
// until there are hits. It goes to the first hit that is not before another offset.
func (l *logView) startSearch(m *Model, from, notBefore int64) tea.Cmd {
	l.search.asked++
	l.search.asking, l.search.more = l.search.asked, &from
	return l.searchPart(m, l.search.asked, notBefore)
}

// searchPart requests the hits in one part, for the search with this number.
func (l *logView) searchPart(m *Model, number int, notBefore int64) tea.Cmd {
	s, id, attempt := &l.search, l.id, l.attempt
	text, from := s.text, *s.more
	return m.ask(0, func(ctx context.Context, c *api.Client) answer {
		found, err := c.Logs().Search(ctx, id, attempt, text, from)
		return func() tea.Cmd {
			if number != s.asking { // it has ended, or another search has begun
				return nil
			}
			if err != nil { // n continues from here
				s.asking = 0
				m.notice = clean(reason(err))
				return nil
			}
			s.more = found.Next
			if len(found.Hits) == 0 && found.Next != nil && *found.Next > from {
				return l.searchPart(m, number, notBefore)
			}
			s.asking = 0
			s.hits = append(s.hits, found.Hits...)
			s.hits = s.hits[max(0, len(s.hits)-hitsKept):]
			if i := slices.IndexFunc(s.hits, func(h api.LogHit) bool { return h.Offset >= notBefore }); i >= 0 {
				s.hit = i
			}
			s.hit = max(0, min(s.hit, len(s.hits)-1))
			if len(s.hits) > 0 {
				l.goal = &s.hits[s.hit]
			}
			return nil
		}
	})
}

// step scrolls to the next or previous hit, and continues the search after the last one.
func (l *logView) step(m *Model, by int) tea.Cmd {
	s := &l.search
	switch {
	case s.more != nil && s.asking == 0 && len(s.hits) == 0:
		return l.startSearch(m, *s.more, l.anchor())
	case s.more != nil && s.asking == 0 && s.hit+by >= len(s.hits):
		return l.startSearch(m, *s.more, s.hits[s.hit].Offset+1)
	case len(s.hits) > 0:
		s.hit = (s.hit + by + len(s.hits)) % len(s.hits)
		l.goal = &s.hits[s.hit]
	}
	return nil
}

// status describes which part of the output is visible.
func (l *logView) status(p paint) string {
	o, s := &l.out, &l.search
	parts := []string{}
	switch {
	case s.asking > 0:
		parts = append(parts, "searching … "+percent(*s.more, o.total))
	case s.text != "" && len(s.hits) == 0 && s.more != nil:
		parts = append(parts, "searched "+percent(*s.more, o.total))
	case s.text != "" && len(s.hits) == 0:
		parts = append(parts, "no hit for "+clean(s.text))
	case s.text != "":
		more := ""
		if s.more != nil {
			more = "+"
		}
		parts = append(parts, fmt.Sprintf("hit %d of %d%s", s.hit+1, len(s.hits), more))
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
		const text = "The output has been removed, because the total exceeded retention.logs."
		return []string{m.paint.text(faint, fit(text, width))}
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
	for i, part := range found(text, l.search.text) {
		if i%2 == 1 {
			out += p.text(hit, part)
		} else {
			out += part
		}
	}
	return out
}
