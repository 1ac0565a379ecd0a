package top

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

var update = flag.Bool("update", false, "write the frames in testdata")

// noon is the time at which the frames are drawn.
var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// fresh returns a model that knows nothing, at noon.
func fresh(width, height int) *Model {
	m := New(false, func() time.Time { return noon })
	m.width, m.height = width, height
	return m
}

func send(m *Model, all ...tea.Msg) *Model {
	for _, msg := range all {
		m.Update(msg)
		m.View()
	}
	return m
}

// press presses keys: each rune of a text, or one key by its name.
func press(m *Model, keys ...string) *Model {
	named := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "pgup": tea.KeyPgUp,
		"backspace": tea.KeyBackspace, "right": tea.KeyRight}
	for _, k := range keys {
		if code, ok := named[k]; ok {
			send(m, tea.KeyPressMsg{Code: code})
			continue
		}
		for _, r := range k {
			send(m, tea.KeyPressMsg{Code: unicode.ToLower(r), Text: string(r)})
		}
	}
	return m
}

// answered returns a loader that has its answer.
func answered[T any](v T) loader[T] { return loader[T]{value: v, known: true, ended: noon} }

// settle marks all questions as answered with the data that is there.
func settle(m *Model) *Model {
	m.cluster.role.busy = false
	for _, s := range m.screens {
		switch s := s.(type) {
		case *overview:
			s.list.busy = false
		case *sweepScreen:
			s.sweep.busy, s.best.busy, s.failures.busy, s.trials.page.busy = false, false, false, false
		case *trialScreen:
			s.sweep.busy, s.attempts.busy, s.explain.busy, s.log.busy = false, false, false, false
		}
	}
	return m
}

func sweepOf(id string, state grid.SweepState, succeeded, failed, running, pending int64) api.Sweep {
	eta := 3723.0
	return api.Sweep{
		SweepCounts: api.SweepCounts{Sweep: grid.SweepID(id), State: state, Count: succeeded + failed + running +
			pending, Succeeded: succeeded, Failed: failed, Running: running, Pending: pending},
		Project: "chainer", Task: "train", Keys: []string{"epoch", "lr", "opt"},
		Metrics: []string{"loss", "accuracy"}, ETA: &eta,
		Objective: &grid.Objective{Metric: "accuracy", Goal: "maximize"},
	}
}

// busy returns a model of a working cluster.
func busy(width, height int) *Model {
	m := fresh(width, height)
	m.cluster.role = answered(api.RoleOperator)
	send(m, streamState{live: true})
	o := m.screens[0].(*overview)
	o.list = answered(api.SweepList{Total: 3, Sweeps: []api.Sweep{
		sweepOf("bow-4", grid.SweepFinished, 5, 0, 0, 0), sweepOf("chainer-3", grid.SweepRunning, 600, 30, 12, 358),
		sweepOf("bow-2", grid.SweepPaused, 1, 0, 0, 9),
	}})
	running := o.list.value.Sweeps[1]
	running.Succeeded, running.Pending = 610, 348
	gpu := func(i, use int, state string) api.GPU {
		return api.GPU{Index: i, Instance: -1, UUID: fmt.Sprint("GPU-", i), Name: "H200", Memory: 80 << 30,
			Used: 40 << 30, Utilization: use, Temperature: 61, Power: 300, State: state,
			Trials: []string{"chainer-3/640"}}
	}
	return settle(send(m, states{
		{Overview: &api.Overview{Active: 1, Sweeps: 3, Pending: 348, Running: 12, Succeeded: 616, Failed: 30}},
		{Sweep: &api.SweepState{SweepCounts: running.SweepCounts, Rate: 1.25, ETA: running.ETA}},
		{Members: []grid.NodeID{"gpu-1", "gpu-2", "gpu-3"}},
		{Node: &api.Member{Node: "gpu-1", State: "alive", Since: noon.Add(-time.Hour),
			Roles: []string{"master", "worker"}, CPUs: 16, Memory: 64 << 30, GPUs: 3, Load: 15.25,
			Running: 8, Driver: "570.1",
			Devices: []api.GPU{gpu(0, 97, "ready"), gpu(1, 2, ""), gpu(2, 0, "sick")}}},
		{Node: &api.Member{Node: "gpu-2", State: "alive", Roles: []string{"worker"}, CPUs: 16, Memory: 64 << 30,
			Load: 3, Running: 4, Drained: true, Reason: "new disk"}},
		{Node: &api.Member{Node: "gpu-3", State: "dead", Roles: []string{"worker"}, CPUs: 16, Memory: 64 << 30}},
	}))
}

func columnOf(name string, values ...any) api.Column { return api.Column{Name: name, Values: values} }

// onSweep returns the model on the screen of a sweep.
func onSweep(width, height int) *Model {
	m := busy(width, height)
	s := newSweepScreen("chainer-3")
	s.sweep = answered(m.screens[0].(*overview).list.value.Sweeps[1])
	s.best = answered("Best accuracy so far: 0.98712 in trial 2, after 7 improvements.")
	s.failures = answered(api.Failures{Counted: 30, Groups: []api.FailureGroup{
		{Class: "cuda_oom", Count: 28, Cause: "a GPU ran out of memory", Owner: "trial", Hint: "reduce the batch",
			Trial: "chainer-3/1", Reason: "exit code 1\nCUDA error: out of memory"},
		{Class: "exit", Count: 2, Cause: "the program failed", Owner: "trial", Trial: "chainer-3/9",
			Reason: "exit code 3"},
	}})
	n := func(text string) json.Number { return json.Number(text) }
	total := int64(1000)
	s.trials.page = answered(api.TrialTable{Sweep: "chainer-3", Total: &total, Count: 4, Columns: []api.Column{
		columnOf("index", n("0"), n("1"), n("2"), n("3")),
		columnOf("state", "succeeded", "failed", "running", "pending"),
		columnOf("m[accuracy]", n("0.98712345"), nil, nil, nil), columnOf("p[epoch]", n("5"), n("5"), n("10"), n("10")),
		columnOf("p[lr]", n("1e-3"), n("0.010"), n("1e-3"), n("0.010")),
		columnOf("p[opt]", "adam", "sgd", true, "adam"), columnOf("m[loss]", n("1.23456789"), nil, n("3"), nil),
		columnOf("class", "", "cuda_oom", "", ""), columnOf("wall_seconds", n("61.5"), n("0.5"), n("12.25"), n("0")),
		columnOf("node", "gpu-1", "gpu-1", "gpu-2", ""),
		columnOf("started", "2026-11-30T11:00:00Z", "2026-11-29T11:00:00Z", "2026-11-30T11:59:00Z", nil),
	}})
	m.open(s)
	return settle(send(m, states{}))
}

// onTrial returns the model on the screen of a trial that printed this many lines.
func onTrial(width, height, lines int) *Model {
	m := onSweep(width, height)
	id := grid.TrialID{Sweep: "chainer-3", Index: 1}
	t := newTrialScreen(id)
	t.sweep = answered(m.screens[1].(*sweepScreen).sweep.value)
	t.attempts = answered([]api.Attempt{{Attempt: 1}, {Attempt: 2}})
	m.open(t)
	code, started := 1, noon.Add(-time.Minute)
	send(m, states{{Trial: &api.Trial{
		Trial: "chainer-3/1", Index: 1, State: grid.Failed, Attempt: 2, Attempts: 2, Node: "gpu-1", ExitCode: &code,
		Class: "cuda_oom", Reason: "exit code 1: a GPU ran out of memory\nCUDA error: out of memory",
		Params: space.Params{{Key: "epoch", Value: space.Value{Text: "5", Kind: space.Number}},
			{Key: "lr", Value: space.Value{Text: "0.010", Kind: space.Number}},
			{Key: "opt", Value: space.Value{Text: "sgd"}}},
		Metrics: grid.Metric{"loss": json.RawMessage("1.23456789"), "accuracy": json.RawMessage("0.5"),
			"note": json.RawMessage(`"x"`)}, Started: &started, Usage: api.Usage{Wall: 61.5, Memory: 3 << 30},
	}}})
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "epoch %d of the training, with a loss of 0.%d and an accuracy that grows\n", i, i)
	}
	data := []byte(b.String())
	t.log.out.replace(&api.LogWindow{Attempt: 2, Next: int64(len(data)) + 5, Total: int64(len(data)) + 5, Ended: true,
		Pieces: []api.LogPiece{
			{Stream: "stdout", Data: data}, {Stream: "stderr", Offset: int64(len(data)), Data: []byte("oops\n")},
		}})
	t.log.of = 2
	return settle(send(m, states{}))
}

// scenes returns every view of the program, at a given size.
var scenes = map[string]func(width, height int) *Model{
	"loading":        fresh,
	"overview":       busy,
	"overview-nodes": func(w, h int) *Model { return press(busy(w, h), "tab", "j") },
	"overview-empty": func(w, h int) *Model {
		m := fresh(w, h)
		m.screens[0].(*overview).list = answered(api.SweepList{})
		return send(m, streamState{live: true}, states{{Overview: &api.Overview{}}})
	},
	"overview-away": func(w, h int) *Model {
		return send(busy(w, h), streamState{why: "dial tcp 10.0.0.1:7420: connect: connection refused"})
	},
	"node":           func(w, h int) *Model { return press(busy(w, h), "tab", "enter") },
	"sweep":          onSweep,
	"sweep-failures": func(w, h int) *Model { return press(onSweep(w, h), "tab") },
	"sweep-scrolled": func(w, h int) *Model { return press(onSweep(w, h), "right", "right", "j") },
	"sweep-unknown": func(w, h int) *Model {
		m := busy(w, h)
		m.open(&sweepScreen{id: "nix-1",
			sweep: loader[api.Sweep]{err: &api.Error{Status: 404, Msg: `there is no sweep "nix-1"`}}})
		return m
	},
	"trial": func(w, h int) *Model { return onTrial(w, h, 40) },
	"trial-search": func(w, h int) *Model {
		m := onTrial(w, h, 40)
		log := m.shown().(*trialScreen).log
		log.search.text, log.search.hits = "EPOCH 2",
			[]api.LogHit{{Stream: "stdout", Offset: 140}, {Stream: "stdout", Offset: 1400}}
		return press(m, "n", "o")
	},
	"help":   func(w, h int) *Model { return press(onSweep(w, h), "?") },
	"prompt": func(w, h int) *Model { return press(onSweep(w, h), "/", "failed lr=0.01") },
	"dialog": func(w, h int) *Model {
		m := onSweep(w, h)
		s := m.screens[1].(*sweepScreen).now(m)
		m.dialog = confirm(m, &api.Done{Sweep: *s}, "pause", nil)
		return m
	},
	"drain": func(w, h int) *Model { return press(busy(w, h), "tab", "d", "new disk") },
	"viewer": func(w, h int) *Model {
		m := busy(w, h)
		m.cluster.role = answered(api.RoleViewer)
		return press(m, "X")
	},
}

// TestFrames draws every scene on a wide and on a narrow terminal. With -update it writes the
// frames.
func TestFrames(t *testing.T) {
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for _, size := range [][2]int{{110, 24}, {40, 24}} {
				lines := scene(size[0], size[1]).frame()
				if len(lines) != size[1] {
					t.Errorf("%d lines, want %d", len(lines), size[1])
				}
				fmt.Fprintf(&got, "%s\n", strings.Repeat("-", size[0]))
				for _, l := range lines {
					fmt.Fprintf(&got, "%s\n", strings.TrimRight(ansi.Strip(l), " "))
				}
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
		})
	}
}

// TestEverySize draws every scene on terminals of every size, with and without colours: no line is
// wider than the terminal, and there are no more lines than fit.
func TestEverySize(t *testing.T) {
	for name, scene := range scenes {
		for range 60 {
			width, height := 1+rand.IntN(160), 1+rand.IntN(50)
			m := scene(width, height)
			m.paint.colours = width%2 == 0
			lines := m.frame()
			if len(lines) > height {
				t.Errorf("%s of %d×%d: %d lines", name, width, height, len(lines))
			}
			for _, l := range lines {
				if got := ansi.StringWidth(l); got > width {
					t.Errorf("%s of %d×%d: a line of %d: %q", name, width, height, got, l)
				}
				if !m.paint.colours && strings.Contains(strings.NewReplacer("\x1b[m", "", "\x1b[1m", "", "\x1b[7m",
					"").Replace(l), "\x1b") {
					t.Errorf("%s without colours: %q", name, l)
				}
			}
		}
	}
}

// TestHostileText makes everything that comes from programs, users and other machines try to
// control the terminal.
func TestHostileText(t *testing.T) {
	const evil = "\x1b]0;owned\a\x1b[2J\x1b[31mred\u202e\u009b31m\ttab\r\nnext\x07"
	hostile := func(m *Model) {
		s := sweepOf("s"+evil, grid.SweepRunning, 1, 1, 1, 1)
		s.Project, s.Task, s.Name, s.Problem, s.Waits = evil, evil, evil, evil, evil
		s.Keys, s.Metrics = []string{evil}, []string{"m" + evil}
		s.Objective = nil
		m.cluster.overview.Problem = evil
		m.screens[0].(*overview).list.value.Sweeps = append(m.screens[0].(*overview).list.value.Sweeps, s)
		node := m.cluster.nodes["gpu-1"]
		node.Reason, node.Problem, node.Version, node.Address, node.Driver, node.CUDA = evil, evil,
			evil, evil, evil, evil
		node.Devices[0].Name, node.Devices[0].Why, node.Devices[0].State, node.Devices[0].Trials = evil, evil,
			evil, []string{evil}
		m.cluster.stream = streamState{why: evil}
		m.notice = clean(reason(errors.New(evil)))
		if len(m.screens) > 1 {
			if sweep, ok := m.screens[1].(*sweepScreen); ok {
				sweep.id, sweep.sweep.value, sweep.best.value = s.Sweep, s, evil
				for i := range sweep.failures.value.Groups {
					sweep.failures.value.Groups[i] = api.FailureGroup{Class: evil, Cause: evil, Owner: evil, Hint: evil,
						Trial: evil, Reason: evil}
				}
				for _, c := range sweep.trials.page.value.Columns {
					for i := range c.Values {
						c.Values[i] = evil
					}
				}
				sweep.trials.filter, sweep.trials.query.Sort = evil, evil
			}
		}
		if v := m.cluster.trial; v != nil {
			v.Node, v.Reason, v.Class, v.Devices = evil, evil, evil, []string{evil}
			v.Params = space.Params{{Key: evil, Value: space.Value{Text: evil}}}
			v.Metrics = grid.Metric{evil: json.RawMessage(`"` + "\x1b[2J" + `"`)}
			log := m.shown().(*trialScreen).log
			log.search.text = evil
			log.out.replace(&api.LogWindow{Next: 100, Total: 100,
				Pieces: []api.LogPiece{{Stream: "stdout", Data: []byte(evil)}}})
		}
	}
	for name, scene := range scenes {
		m := scene(100, 40)
		if m.cluster.overview == nil || len(m.cluster.nodes) == 0 {
			continue
		}
		hostile(m)
		send(m, states{})
		for _, l := range m.frame() {
			l = strings.NewReplacer("\x1b[m", "", "\x1b[1m", "", "\x1b[7m", "").Replace(l)
			if i := strings.IndexFunc(l, func(r rune) bool {
				return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
			}); i >= 0 {
				t.Errorf("%s: %q reaches the terminal", name, l)
			}
		}
		if v := m.View(); strings.ContainsFunc(v.WindowTitle, unicode.IsControl) {
			t.Errorf("%s: title %q", name, v.WindowTitle)
		}
	}
}

// TestStoppedTrialsAreCountedApart shows trials that were stopped early next to cancelled ones.
func TestStoppedTrialsAreCountedApart(t *testing.T) {
	m := onSweep(110, 24)
	counts := api.SweepCounts{Sweep: "chainer-3", State: grid.SweepRunning, Count: 1000, Succeeded: 100, Running: 100,
		Pending: 100, Cancelled: 700, Stopped: 300}
	send(m, states{{Sweep: &api.SweepState{SweepCounts: counts}}})
	got := ansi.Strip(m.View().Content)
	for _, want := range []string{"⊖ 300 stopped early   ⊘ 400 cancelled", strings.Repeat("▞", 31) + "▚", "80 %"} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
}
