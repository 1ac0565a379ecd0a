package top

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// Model is what is shown. Its functions ask, want and retry reach the world; without them it is pure.
type Model struct {
	ask   func(wait time.Duration, q question) tea.Cmd
	want  func(topics []string)
	retry func()
	hosts func() bool
	now   func() time.Time

	paint         paint
	width, height int
	screens       []screen // the last one is shown; the first is the overview
	dialog        *dialog
	prompt        *prompt
	help          bool
	frozen        bool
	notice        string // what was done last, or what went wrong
	cluster       cluster
}

// cluster is what the stream of events has told.
type cluster struct {
	role     loader[api.Role]
	line     line
	lost     time.Time // since when the node is not reached; zero while it is
	heard    time.Time // last
	epoch    int       // counts the returns of the node, after which all is asked for again
	overview *api.Overview
	sweeps   map[grid.SweepID]*api.SweepState
	nodes    map[grid.NodeID]*api.Member
	names    []grid.NodeID // of the nodes
	trial    *api.Trial    // of the screen of a trial
}

// screen is one of the things that can be shown.
type screen interface {
	name() string             // for the head
	topics() []string         // of the stream of events
	refresh(m *Model) tea.Cmd // asks for what is missing or has changed; called after each message
	keys(m *Model) []binding
	view(m *Model, width, height int) []string
}

// binding is what a key does. Those without a text are not in the help, and those without a function are there for it alone.
type binding struct {
	keys string // with blanks between them
	text string
	do   func() tea.Cmd
}

// New makes a model that shows the overview.
func New(colours bool, now func() time.Time) *Model {
	m := &Model{
		paint: paint{colours}, now: now, width: 80, height: 24,
		ask:   func(time.Duration, question) tea.Cmd { return nil },
		want:  func([]string) {},
		retry: func() {},
		hosts: func() bool { return false },
	}
	m.cluster.sweeps, m.cluster.nodes = map[grid.SweepID]*api.SweepState{}, map[grid.NodeID]*api.Member{}
	m.screens = []screen{&overview{}}
	return m
}

// Init implements tea.Model.
func (m *Model) Init() tea.Cmd { return m.refresh() }

func (m *Model) shown() screen { return m.screens[len(m.screens)-1] }

// Update implements tea.Model.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		cmd = m.press(msg.Key())
	case tea.PasteMsg:
		if m.prompt != nil {
			m.prompt.add(msg.Content)
		}
	case states:
		m.hear(msg)
	case line:
		m.turn(msg)
	case answer:
		if msg != nil {
			cmd = msg()
		}
	default:
		return m, nil
	}
	return m, tea.Batch(cmd, m.refresh())
}

// refresh asks for what the screen lacks.
func (m *Model) refresh() tea.Cmd {
	if m.frozen {
		return nil
	}
	m.want(m.shown().topics())
	return tea.Batch(m.learnRole(), m.shown().refresh(m))
}

// learnRole asks what the user may do.
func (m *Model) learnRole() tea.Cmd {
	return m.cluster.role.want(m, m.cluster.epoch, func(ctx context.Context, c *api.Client) (api.Role, error) {
		s, err := c.Session(ctx)
		return s.Role, err
	})
}

// hear takes states in.
func (m *Model) hear(all states) {
	if m.frozen {
		return
	}
	c := &m.cluster
	c.heard = m.now()
	for i := range all {
		e := &all[i]
		switch {
		case e.Overview != nil:
			c.overview = e.Overview
		case e.Sweep != nil:
			c.sweeps[e.Sweep.Sweep] = e.Sweep
		case e.Node != nil:
			c.nodes[e.Node.Node] = e.Node
		case e.Trial != nil:
			c.trial = e.Trial
		case e.Members != nil:
			c.names = e.Members
			for name := range c.nodes {
				if !slices.Contains(c.names, name) {
					delete(c.nodes, name)
				}
			}
		}
	}
}

// turn takes in how the stream is. Of what ended while it was away nobody tells, so the states of sweeps are forgotten when it is back.
func (m *Model) turn(l line) {
	c := &m.cluster
	switch {
	case !l.live && c.lost.IsZero():
		c.lost = m.now()
	case l.live && !c.lost.IsZero():
		c.lost = time.Time{}
		c.epoch++
		clear(c.sweeps)
		c.trial = nil
	}
	c.line = l
}

// press does what a key is for.
func (m *Model) press(k tea.Key) tea.Cmd {
	key := k.String()
	if key == "ctrl+c" {
		return tea.Quit
	}
	switch {
	case m.dialog != nil:
		return m.dialog.press(m, k)
	case m.prompt != nil:
		return m.prompt.press(m, k)
	case m.help:
		m.help = false
		return nil
	}
	m.notice = ""
	for _, b := range append(m.shown().keys(m), m.everywhere()...) {
		if b.do != nil && slices.Contains(strings.Fields(b.keys), key) {
			return b.do()
		}
	}
	return nil
}

// everywhere are the keys of all screens.
func (m *Model) everywhere() []binding {
	return []binding{
		{": ctrl+k", "go to a sweep, a trial or a node, by its name", m.goTo},
		{"esc backspace", "one step back", m.back},
		{"space", "stop what moves, or let it go on", m.freeze},
		{"?", "show these keys", func() tea.Cmd { m.help = true; return nil }},
		{"ctrl+l", "ask for everything again, and draw it", func() tea.Cmd { m.cluster.epoch++; return tea.ClearScreen }},
		{"ctrl+z", "", func() tea.Cmd { return tea.Suspend }},
		{"q ctrl+c", "leave", m.quit},
	}
}

func (m *Model) open(s screen) tea.Cmd {
	m.screens = append(m.screens, s)
	m.cluster.trial = nil
	m.cluster.line.gone = false
	return nil
}

func (m *Model) back() tea.Cmd {
	if len(m.screens) > 1 {
		m.screens = m.screens[:len(m.screens)-1]
		m.cluster.trial = nil
		m.cluster.line.gone = false
	}
	return nil
}

// freeze stops what moves, or has all states sent again.
func (m *Model) freeze() tea.Cmd {
	if m.frozen = !m.frozen; !m.frozen {
		m.cluster.epoch++
		m.retry()
	}
	return nil
}

// quit leaves, and asks before it stops trials that run in this process.
func (m *Model) quit() tea.Cmd {
	o := m.cluster.overview
	if !m.hosts() || o == nil || o.Running == 0 {
		return tea.Quit
	}
	m.dialog = &dialog{
		title: "Leave?", verb: "leave",
		text: plural(o.Running, "trial") + " of this machine run in this process. They are stopped, and run again with mlfnode resume.",
		run:  func(bool, string) tea.Cmd { return tea.Quit },
	}
	return nil
}

// goTo asks where to go: a sweep, a trial by sweep and number or by its number in the sweep that is shown, or a node.
func (m *Model) goTo() tea.Cmd {
	m.prompt = &prompt{label: "go to ", done: func(text string) tea.Cmd {
		text = strings.TrimSpace(text)
		if _, ok := m.cluster.nodes[grid.NodeID(text)]; ok {
			return m.open(&nodeScreen{node: grid.NodeID(text)})
		}
		sweep, index, found := strings.Cut(text, "/")
		n, err := strconv.ParseInt(index, 10, 64)
		if s := m.sweepShown(); !found && s != "" {
			if number, e := strconv.ParseInt(text, 10, 64); e == nil {
				sweep, n, err, found = string(s), number, nil, true
			}
		}
		switch {
		case text == "":
			return nil
		case !found:
			return m.open(newSweepScreen(grid.SweepID(sweep)))
		case err != nil || n < 0:
			m.notice = clean(text) + " is not a trial: they are named as in chainer-3/17"
			return nil
		}
		return m.open(newTrialScreen(grid.TrialID{Sweep: grid.SweepID(sweep), Index: n}))
	}}
	return nil
}

// sweepShown is the sweep that the screen is about.
func (m *Model) sweepShown() grid.SweepID {
	switch s := m.shown().(type) {
	case *sweepScreen:
		return s.id
	case *trialScreen:
		return s.id.Sweep
	}
	return ""
}

// mayAct reports whether the user may act, and says so where not.
func (m *Model) mayAct() bool {
	if r := &m.cluster.role; r.known && r.value == api.RoleViewer {
		m.notice = "you may look, and not act: your token is a viewer's (mlfnode token --role operator)"
		return false
	}
	return true
}

// spacing is the least time between two answers about the same thing.
const spacing = 2 * time.Second

// loader has one thing asked for again when it has changed, one question at a time.
type loader[T any] struct {
	value T
	known bool
	err   error // of the last question

	asked any // the version that was asked for last
	busy  bool
	ended time.Time
	next  func(context.Context, *api.Client) (T, error)
}

// want asks for what fn gives, unless the same version was asked for before. Versions are comparable.
func (l *loader[T]) want(m *Model, version any, fn func(context.Context, *api.Client) (T, error)) tea.Cmd {
	if version == l.asked {
		return nil
	}
	l.asked = version
	if l.busy {
		l.next = fn
		return nil
	}
	return l.start(m, fn)
}

func (l *loader[T]) start(m *Model, fn func(context.Context, *api.Client) (T, error)) tea.Cmd {
	l.busy = true
	wait := time.Duration(0)
	if l.known {
		wait = max(0, spacing-m.now().Sub(l.ended))
	}
	return m.ask(wait, func(ctx context.Context, c *api.Client) answer {
		v, err := fn(ctx, c)
		return func() tea.Cmd { return l.took(m, v, err) }
	})
}

// took takes an answer. One that was lost with the node leaves what was there: it comes again when the node is back.
func (l *loader[T]) took(m *Model, v T, err error) tea.Cmd {
	l.busy, l.ended = false, m.now()
	switch {
	case err == nil:
		l.value, l.known, l.err = v, true, nil
	case !errors.Is(err, api.ErrLost) || !l.known:
		l.err = err
	}
	if fn := l.next; fn != nil {
		l.next = nil
		return l.start(m, fn)
	}
	return nil
}

// at once makes the next question about another page or order not wait.
func (l *loader[T]) atOnce() { l.ended = time.Time{} }
