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

// Model is the state of what is shown. Apart from its environment it is pure.
type Model struct {
	environment

	paint         paint
	width, height int
	screens       []screen // the last one is shown; the first is the overview
	dialog        *dialog
	prompt        *prompt
	help          bool
	frozen        bool   // updates are paused
	presses       int    // the number of keys pressed, by which a late answer is recognised
	notice        string // the last action, or what went wrong
	cluster       cluster
}

// environment is how a model accesses the outside world.
type environment struct {
	ask   func(wait time.Duration, q question) tea.Cmd // asks the node, after some time
	want  func(topics []string)                        // chooses the topics of the event stream
	retry func()                                       // reopens the event stream immediately
	hosts func() bool                                  // reports whether trials of this machine run in this process
	now   func() time.Time
}

// cluster is what the event stream has reported.
type cluster struct {
	role     loader[api.Role]
	stream   streamState
	lost     time.Time // since when the node has been unreachable; zero while it is reachable
	heard    time.Time // time of the last event
	epoch    int       // counts the node's returns, after each of which everything is requested again
	overview *api.Overview
	sweeps   map[grid.SweepID]*api.SweepState
	nodes    map[grid.NodeID]*api.Member
	names    []grid.NodeID // of the nodes
	trial    *api.Trial    // on the screen of a trial
}

// screen is one of the views of the program.
type screen interface {
	name() string             // for the header
	topics() []string         // of the event stream
	refresh(m *Model) tea.Cmd // requests what is missing or has changed; called after each message
	keys(m *Model) []binding
	view(m *Model, width, height int) []string
}

// binding is the action of a key. Bindings without a text are not in the help, and those without a
// function exist only for the help.
type binding struct {
	keys string // separated by blanks
	text string
	do   func() tea.Cmd
}

// New returns a model that shows the overview.
func New(colours bool, now func() time.Time) *Model {
	return &Model{
		environment: environment{
			ask:   func(time.Duration, question) tea.Cmd { return nil },
			want:  func([]string) {},
			retry: func() {},
			hosts: func() bool { return false },
			now:   now,
		},
		paint: paint{colours}, width: 80, height: 24,
		screens: []screen{&overview{}},
		cluster: cluster{sweeps: map[grid.SweepID]*api.SweepState{}, nodes: map[grid.NodeID]*api.Member{}},
	}
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
		m.presses++
		switch {
		case m.dialog != nil && m.dialog.input != nil:
			m.dialog.input.add(msg.Content)
		case m.dialog == nil && m.prompt != nil:
			m.prompt.add(msg.Content)
		}
	case states:
		if !m.frozen {
			m.cluster.heard = m.now()
		}
		m.cluster.applyStates(msg, m.frozen)
	case streamState:
		m.cluster.applyStreamState(msg, m.frozen, m.now())
	case answer:
		if msg != nil {
			cmd = msg()
		}
	default:
		return m, nil
	}
	return m, tea.Batch(cmd, m.refresh())
}

// refresh requests what the screen lacks; while updates are paused, only what it never had.
func (m *Model) refresh() tea.Cmd {
	role := m.cluster.role.want(m, m.cluster.epoch, func(ctx context.Context, c *api.Client) (api.Role, error) {
		s, err := c.Session(ctx)
		return s.Role, err
	})
	cmd := tea.Batch(role, m.shown().refresh(m))
	m.want(m.shown().topics()) // a refresh may have made them more precise
	return cmd
}

// applyStates records states from the stream. While updates are paused it records only what was
// unknown, so that a screen opened in the meantime is not empty.
func (c *cluster) applyStates(all states, frozen bool) {
	for i := range all {
		e := &all[i]
		if frozen && c.knows(e) {
			continue
		}
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

// knows reports whether a state has been recorded for the subject of the event.
func (c *cluster) knows(e *api.Events) bool {
	switch {
	case e.Overview != nil:
		return c.overview != nil
	case e.Sweep != nil:
		return c.sweeps[e.Sweep.Sweep] != nil
	case e.Node != nil:
		return c.nodes[e.Node.Node] != nil
	case e.Trial != nil:
		return c.trial != nil && c.trial.Trial == e.Trial.Trial
	case e.Members != nil:
		return c.names != nil
	}
	return false
}

// members returns the nodes of the cluster by name.
func (c *cluster) members() []*api.Member {
	all := []*api.Member{}
	for _, name := range c.names {
		if n := c.nodes[name]; n != nil {
			all = append(all, n)
		}
	}
	return all
}

// waiting returns the text for data that has not arrived yet.
func (c *cluster) waiting() string {
	if !c.lost.IsZero() {
		return "nothing is known yet"
	}
	return "loading …"
}

// forget drops the states that a stream repeats only for what still runs.
func (c *cluster) forget() {
	clear(c.sweeps)
	c.trial = nil
}

// applyStreamState records the state of the stream. A stream that opens does not report what ended
// before, so the states of sweeps and of the trial are forgotten.
func (c *cluster) applyStreamState(s streamState, frozen bool, now time.Time) {
	switch {
	case !s.live && c.lost.IsZero():
		c.lost = now
	case s.live && !c.lost.IsZero():
		c.lost = time.Time{}
		c.epoch++
	}
	if s.live && !frozen {
		c.forget()
	}
	c.stream = s
}

// press runs the binding of a key.
func (m *Model) press(k tea.Key) tea.Cmd {
	m.presses++
	key := k.String()
	switch {
	case key == "ctrl+c" && m.dialog != nil && m.dialog.leaving:
		return tea.Quit
	case key == "ctrl+c":
		return m.quit()
	case m.dialog != nil:
		return m.dialog.press(m, k)
	case m.prompt != nil:
		return m.prompt.press(m, k)
	case m.help:
		m.help = false
		return nil
	}
	m.notice = ""
	for _, b := range m.bindings() {
		if b.do != nil && slices.Contains(strings.Fields(b.keys), key) {
			return b.do()
		}
	}
	return nil
}

// bindings returns the keys that work now: those of the screen, and those of all screens.
func (m *Model) bindings() []binding {
	return append(m.shown().keys(m), []binding{
		{": ctrl+k", "go to a sweep, a trial or a node, by its name", func() tea.Cmd {
			m.prompt = &prompt{label: "go to ", done: m.goTo}
			return nil
		}},
		{"esc backspace", "go back", m.back},
		{"space", "pause or resume updates", func() tea.Cmd {
			if m.frozen = !m.frozen; !m.frozen {
				m.reload()
			}
			return nil
		}},
		{"?", "show these keys", func() tea.Cmd { m.help = true; return nil }},
		{"ctrl+l", "reload and redraw", func() tea.Cmd { m.reload(); return tea.ClearScreen }},
		{"ctrl+z", "", func() tea.Cmd { return tea.Suspend }},
		{"q ctrl+c", "quit", m.quit},
	}...)
}

func (m *Model) open(s screen) tea.Cmd {
	if len(m.screens) == maxScreens {
		m.screens = slices.Delete(m.screens, 1, 2)
	}
	m.screens = append(m.screens, s)
	m.cluster.trial = nil
	m.cluster.stream.gone = false
	return nil
}

func (m *Model) back() tea.Cmd {
	if len(m.screens) > 1 {
		m.screens = m.screens[:len(m.screens)-1]
		m.cluster.trial = nil
		m.cluster.stream.gone = false
	}
	return nil
}

// reload requests everything again, including the states from the stream. It resumes updates.
func (m *Model) reload() {
	m.frozen = false
	m.cluster.epoch++
	m.cluster.forget()
	m.retry()
}

// quit ends the program, and asks first if trials run in this process.
func (m *Model) quit() tea.Cmd {
	o := m.cluster.overview
	if !m.hosts() || o == nil || o.Running == 0 {
		return tea.Quit
	}
	m.dialog = &dialog{
		title: "Quit?", verb: "quit", leaving: true,
		text: plural(o.Running, "trial") +
			" of this machine run in this process. They are stopped, and run again with mlfnode resume.",
		run: func(bool, string) tea.Cmd { return tea.Quit },
	}
	return nil
}

// goTo shows the node, the sweep or the trial with this name. In a sweep, a number alone means a
// trial of it.
func (m *Model) goTo(name string) tea.Cmd {
	name = strings.TrimSpace(name)
	if _, ok := m.cluster.nodes[grid.NodeID(name)]; ok {
		return m.open(&nodeScreen{node: grid.NodeID(name)})
	}
	var shown grid.SweepID
	switch s := m.shown().(type) {
	case *sweepScreen:
		shown = s.id
	case *trialScreen:
		shown = s.id.Sweep
	}
	sweep, index, found := strings.Cut(name, "/")
	n, err := strconv.ParseInt(index, 10, 64)
	if !found && shown != "" {
		if number, e := strconv.ParseInt(name, 10, 64); e == nil {
			sweep, n, err, found = string(shown), number, nil, true
		}
	}
	switch {
	case name == "":
		return nil
	case !found:
		return m.open(newSweepScreen(grid.SweepID(sweep)))
	case err != nil || n < 0:
		m.notice = clean(name) + " is not a trial: they are named as in chainer-3/17"
		return nil
	}
	return m.open(newTrialScreen(grid.TrialID{Sweep: grid.SweepID(sweep), Index: n}))
}

// maxScreens bounds the number of screens kept for going back.
const maxScreens = 50

// spacing is the shortest time between two answers to the same question.
const spacing = 2 * time.Second

// loader requests one thing again when it has changed, with one request at a time.
type loader[T any] struct {
	value T
	known bool
	err   error // of the last request

	asked    any // the version that was requested last
	busy     bool
	stale    bool // the answer to the current request is no longer wanted
	ended    time.Time
	failures int // consecutive failed requests
	next     func(context.Context, *api.Client) (T, error)
}

// want requests what fn returns, unless the same version has been requested before, or updates are
// paused and any version has been. Versions are comparable.
func (l *loader[T]) want(m *Model, version any, fn func(context.Context, *api.Client) (T, error)) tea.Cmd {
	if version == l.asked || m.frozen && l.asked != nil {
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
	if l.known || l.failures > 0 {
		wait = max(0, min(spacing<<min(l.failures, 8), longestWait)-m.now().Sub(l.ended))
	}
	return m.ask(wait, func(ctx context.Context, c *api.Client) answer {
		v, err := fn(ctx, c)
		return func() tea.Cmd { return l.answered(m, fn, v, err) }
	})
}

// answered records the answer to fn. After a failure fn is called again, with growing waits, unless
// the node is unreachable: what is shown is requested again when the node is back.
func (l *loader[T]) answered(m *Model, fn func(context.Context, *api.Client) (T, error), v T, err error) tea.Cmd {
	l.busy = false
	switch {
	case l.stale:
		l.stale = false
	case err == nil:
		l.value, l.known, l.err, l.failures, l.ended = v, true, nil, 0, m.now()
	default:
		l.failures++
		l.ended = m.now()
		if !errors.Is(err, api.ErrLost) || !l.known {
			l.err = err
		}
		if l.next == nil && m.cluster.lost.IsZero() {
			l.next = fn
		}
	}
	if fn := l.next; fn != nil {
		l.next = nil
		return l.start(m, fn)
	}
	return nil
}

// discard lets the next request begin immediately, and drops the answer to the current one, because
// something else is wanted.
func (l *loader[T]) discard() {
	l.asked, l.stale, l.next, l.failures, l.ended = nil, l.busy, nil, 0, time.Time{}
}
