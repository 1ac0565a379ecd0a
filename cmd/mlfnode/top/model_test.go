package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestFilter parses filters as users write them.
func TestFilter(t *testing.T) {
	s := sweepOf("chainer-3", grid.SweepRunning, 1, 0, 0, 0)
	for _, tt := range []struct{ text, want string }{
		{"", "[]  map[]"},
		{"failed running", "[failed running]  map[]"},
		{"state=failed class=oom", "[failed] oom map[]"},
		{"lr=0.1 lr=0.01 opt=adam", "[]  map[p[lr]:[0.1 0.01] p[opt]:[adam]]"},
		{"lr=0.001..0.01 epoch>=5 epoch<=9", "[]  map[p[epoch]:[5.. ..9] p[lr]:[0.001..0.01]]"},
		{"accuracy>=0.9 loss=1", "[]  map[m[accuracy]:[0.9..] m[loss]:[1..1]]"},
		{"node=gpu-1", "[]  map[node:[gpu-1]]"},
		{"epoch>5", "a range includes its ends; write epoch>=5"},
		{"loss<0.1", "a range includes its ends; write loss<=0.1"},
		{"best", "best is neither a state nor a condition"},
		{"x=1", "chainer-3 has no parameter and no metric x"},
		{"lr=", "lr= is neither"}, {"=1", "=1 is neither"},
	} {
		q, err := parseFilter(tt.text, &s)
		got := fmt.Sprintf("%v %s %v", q.States, q.Class, q.Where)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%q: got %s, want %s", tt.text, got, tt.want)
		}
	}
}

// questions is a model whose questions wait to be answered.
func questions(m *Model) *[]time.Duration {
	var waits []time.Duration
	m.ask = func(wait time.Duration, _ question) tea.Cmd {
		waits = append(waits, wait)
		return nil
	}
	return &waits
}

// TestOneQuestionAtATime makes a loader want newer versions all the time: only one question is in
// progress, and two answers are spaced apart.
func TestOneQuestionAtATime(t *testing.T) {
	m := fresh(80, 24)
	waits := questions(m)
	var l loader[int]
	get := func(context.Context, *api.Client) (int, error) { return 0, nil }
	for i := range 5 {
		l.want(m, i, get)
	}
	if len(*waits) != 1 || (*waits)[0] != 0 {
		t.Fatalf("got questions after %v, want one immediately", *waits)
	}
	l.answered(m, get, 1, nil)
	if len(*waits) != 2 || (*waits)[1] != spacing {
		t.Errorf("got questions after %v, want another one after %v", *waits, spacing)
	}
	m.cluster.lost = noon
	l.answered(m, get, 2, fmt.Errorf("%w: cut", api.ErrLost))
	l.want(m, 4, get)
	if len(*waits) != 2 || l.value != 1 || l.err != nil {
		t.Errorf("got %d and %v after %d questions, want what was there", l.value, l.err, len(*waits))
	}
	l.want(m, 5, get)
	m.cluster.lost = time.Time{}
	l.answered(m, get, 0, errors.New("broken"))
	if l.err == nil || l.value != 1 {
		t.Errorf("got %d and no error, want what was there with the error", l.value)
	}
	if last := (*waits)[len(*waits)-1]; len(*waits) != 4 || last <= spacing {
		t.Errorf("got questions after %v, want a retry after more than %v", *waits, spacing)
	}
	if l.answered(m, get, 3, nil); l.err != nil || l.value != 3 {
		t.Errorf("got %d and %v after the retry", l.value, l.err)
	}
}

// TestNothingIsAskedTwice delivers states that change nothing: nothing is requested, not even with
// the output at its end.
func TestNothingIsAskedTwice(t *testing.T) {
	for name, scene := range scenes {
		m := scene(100, 30)
		waits := questions(m)
		again := states{}
		if m.cluster.overview != nil {
			again = append(again, api.Events{Overview: m.cluster.overview})
		}
		send(m, again)
		first := len(*waits)
		for range 5 {
			send(m, again)
		}
		if len(*waits) != first {
			t.Errorf("%s: got %d questions, then %d more", name, first, len(*waits)-first)
		}
	}
}

// TestReturnOfTheNode makes the node go away and come back: what is shown stays, and is then
// requested again.
func TestReturnOfTheNode(t *testing.T) {
	m := onSweep(100, 30)
	send(m, streamState{why: "connection refused"})
	if text := strings.Join(m.frame(), "\n"); !strings.Contains(text, "unreachable since 12:00:00") ||
		!strings.Contains(text, "cuda_oom") || strings.Contains(text, "● live") {
		t.Errorf("got\n%s", text)
	}
	waits := questions(m)
	send(m, streamState{why: "connection refused"})
	if len(*waits) > 0 {
		t.Errorf("got %d questions to a node that is away", len(*waits))
	}
	send(m, streamState{live: true})
	if text := strings.Join(m.frame(), "\n"); len(*waits) < 3 || strings.Contains(text, "unreachable") {
		t.Errorf("got %d questions\n%s", len(*waits), text)
	}
}

// TestKeys walks through the screens and back.
func TestKeys(t *testing.T) {
	m := busy(100, 30)
	name := func() string { return fmt.Sprintf("%d %s", len(m.screens), m.shown().name()) }
	for _, tt := range []struct {
		keys []string
		want string
	}{
		{[]string{"enter"}, "2 chainer-3"}, {[]string{"esc"}, "1 overview"}, {[]string{"j", "enter"}, "2 bow-2"},
		{[]string{":17", "enter"}, "3 bow-2/17"},
		{[]string{"]"}, "3 bow-2/18"}, {[]string{"[[["}, "3 bow-2/15"},
		{[]string{":chainer-3/4", "enter"}, "4 chainer-3/4"}, {[]string{":gpu-1", "enter"}, "5 gpu-1"},
		{[]string{":gpu-9", "backspace", "enter"}, "6 gpu-"}, {[]string{":x/y", "enter"}, "6 gpu-"},
		{[]string{":", "esc"}, "6 gpu-"}, {[]string{"esc", "esc", "esc", "esc", "esc", "esc"}, "1 overview"},
		{[]string{"?", "enter"}, "1 overview"},
	} {
		if press(m, tt.keys...); name() != tt.want {
			t.Errorf("%v: got %s, want %s", tt.keys, name(), tt.want)
		}
	}
}

// TestStatesOfAnotherTrial delivers events about the trial that was shown before.
func TestStatesOfAnotherTrial(t *testing.T) {
	m := onTrial(100, 30, 1)
	press(m, "]")
	send(m, states{{Trial: &api.Trial{Trial: "chainer-3/1", Index: 1, State: grid.Failed}}})
	if text := strings.Join(m.frame(), "\n"); !strings.Contains(text, "loading") || strings.Contains(text, "failed") {
		t.Errorf("got\n%s", text)
	}
	press(m, ":last/7", "enter")
	send(m, states{{Trial: &api.Trial{Trial: "chainer-3/7", Index: 7, State: grid.Succeeded}}})
	if text := strings.Join(m.frame(), "\n"); !strings.Contains(text, "succeeded") {
		t.Errorf("got\n%s", text)
	}
}

// TestViewerMayNotAct presses the keys of actions as a user who has only read access.
func TestViewerMayNotAct(t *testing.T) {
	m := busy(100, 30)
	m.cluster.role.value = api.RoleViewer
	waits := questions(m)
	asked := len(*waits)
	for _, keys := range [][]string{{"p"}, {"X"}, {"r"}, {"tab", "d"}} {
		if press(m, keys...); m.dialog != nil || !strings.Contains(m.notice, "a viewer's") {
			t.Errorf("%v: got notice %q", keys, m.notice)
		}
		m.notice = ""
	}
	if len(*waits) != asked {
		t.Errorf("got %d questions", len(*waits)-asked)
	}
}

// TestLeaving checks that the program asks before it stops trials that run in this process.
func TestLeaving(t *testing.T) {
	m := busy(100, 30)
	if _, cmd := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); m.dialog != nil || cmd == nil {
		t.Error("got a question although nothing runs here")
	}
	m.hosts = func() bool { return true }
	if press(m, "q"); m.dialog == nil ||
		!strings.Contains(m.dialog.text, "12 trials of this machine run in this process") {
		t.Error("got no question")
	}
	if press(m, "n"); m.dialog != nil {
		t.Error("the question stays")
	}
	interrupt := tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
	if send(m, interrupt); m.dialog == nil {
		t.Error("Ctrl-C asks nothing")
	}
	if cmd := m.press(interrupt.Key()); cmd == nil || cmd() != tea.Quit() {
		t.Error("a second Ctrl-C does not leave")
	}
}

// TestKeysAreDocumented checks that the manual lists every key of every screen.
func TestKeysAreDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/monitor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, manual, _ = bytes.Cut(manual, []byte("\n## In a terminal\n"))
	names := map[string]string{
		"enter": "Enter", "tab": "Tab", "esc": "Esc", "space": "Space", "left": "←", "right": "→", "up": "arrows",
		"down": "arrows", "backspace": "Backspace",
		"pgup": "PgUp", "pgdown": "PgDn", "home": "Home", "end": "End", "ctrl+b": "Ctrl-B", "ctrl+c": "Ctrl-C",
		"ctrl+f": "Ctrl-F", "ctrl+k": "Ctrl-K", "ctrl+l": "Ctrl-L",
		"ctrl+z": "Ctrl-Z",
	}
	for name, scene := range scenes {
		m := scene(100, 30)
		for _, b := range m.bindings() {
			if b.keys == movesHelp {
				continue
			}
			for _, key := range strings.Fields(b.keys) {
				shown := "`" + key + "`"
				if known, ok := names[key]; ok {
					shown = known
				}
				if !bytes.Contains(manual, []byte(shown)) {
					t.Errorf("%s: docs/monitor.md does not say what %s does: %s", name, key, b.text)
				}
			}
		}
	}
}

// TestFrozen pauses everything that moves.
func TestFrozen(t *testing.T) {
	m := busy(100, 30)
	retried := false
	m.retry = func() { retried = true }
	press(m, " ")
	send(m, states{{Overview: &api.Overview{Running: 99}}})
	if m.cluster.overview.Running == 99 || retried {
		t.Error("what is shown moves")
	}
	if press(m, " "); !retried {
		t.Error("the states are not asked for again")
	}
}
