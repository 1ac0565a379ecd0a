package top

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// asking holds back a model's questions until a test lets a server answer them.
type asking struct {
	t      *testing.T
	m      *Model
	client *api.Client
	waits  []time.Duration
	held   []question
}

func holdQuestions(t *testing.T, m *Model, handle http.HandlerFunc) *asking {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	a := &asking{t: t, m: m, client: api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})}
	t.Cleanup(a.client.Close)
	m.ask = func(wait time.Duration, q question) tea.Cmd {
		a.waits, a.held = append(a.waits, wait), append(a.held, q)
		return nil
	}
	send(m, states{}) // events that the scene lacks
	a.held = nil
	return a
}

// answer answers the questions that are held back.
func (a *asking) answer() {
	a.t.Helper()
	held := a.held
	if a.held = nil; len(held) == 0 {
		a.t.Fatal("nothing is asked for")
	}
	for _, q := range held {
		send(a.m, q(a.t.Context(), a.client))
	}
}

func nothing(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }

// TestStatesOfEndedSweeps checks that the states of sweeps are forgotten whenever a stream opens,
// since it does not report what ended before.
func TestStatesOfEndedSweeps(t *testing.T) {
	for name, reopen := range map[string]func(m *Model){
		"stream": func(m *Model) { send(m, streamState{live: true}) },
		"frozen": func(m *Model) { press(m, "  ") },
		"reload": func(m *Model) { send(m, tea.KeyPressMsg{Code: 'l', Mod: tea.ModCtrl}) },
	} {
		m := onTrial(100, 30, 1)
		if reopen(m); len(m.cluster.sweeps) > 0 || m.cluster.trial != nil {
			t.Errorf("%s: got states of %d sweeps, and %v, want none", name, len(m.cluster.sweeps), m.cluster.trial)
		}
	}
}

// TestLateConfirmation checks that a confirmation that arrives after other keys does not open, and
// that Enter does not confirm.
func TestLateConfirmation(t *testing.T) {
	m := busy(100, 30)
	a := holdQuestions(t, m, nothing)
	for _, keys := range [][]string{{"j"}, {":"}, {"enter"}, {"?"}} {
		press(m, "p")
		if press(m, keys...); len(a.held) == 0 {
			t.Fatal("nothing is asked for")
		}
		if a.answer(); m.dialog != nil {
			t.Errorf("the confirmation opens after %v", keys)
		}
		m.dialog, m.prompt, m.help, m.screens = nil, nil, false, m.screens[:1]
		a.held = nil
	}
	press(m, "p")
	if a.answer(); m.dialog == nil {
		t.Fatal("no confirmation")
	}
	if press(m, "enter"); m.dialog == nil || len(a.held) > 0 {
		t.Error("Enter confirms")
	}
	if press(m, "y"); m.dialog != nil || len(a.held) != 1 {
		t.Error("y does not confirm")
	}
}

// TestRowsMove inserts rows before the chosen ones: keys still act on the chosen ones.
func TestRowsMove(t *testing.T) {
	m := press(onSweep(100, 30), "tab", "j")
	var asked api.Retry
	a := holdQuestions(t, m, func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&asked)
		fmt.Fprint(w, `{"sweep": {"sweep": "chainer-3"}, "changed": 2}`)
	})
	slices.Reverse(m.shown().(*sweepScreen).failures.value.Groups)
	press(m, "r")
	if a.answer(); asked.Class != "exit" || m.dialog == nil || !strings.Contains(m.dialog.title, "of class exit") {
		t.Errorf("got a retry of %q in %+v", asked.Class, m.dialog)
	}

	m = press(busy(100, 30), "tab", "j")
	names := []grid.NodeID{"gpu-0", "gpu-1", "gpu-2", "gpu-3"}
	send(m, states{{Members: names}, {Node: &api.Member{Node: "gpu-0", State: "alive"}}})
	if press(m, "d"); m.dialog == nil || !strings.Contains(m.dialog.title, "gpu-2") {
		t.Errorf("got %+v, want a question about gpu-2", m.dialog)
	}
}

// TestFaultsEndTop makes the model and the feed panic: the program ends with the fault, not as
// interrupted.
func TestFaultsEndTop(t *testing.T) {
	out, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	client := api.NewClient(func(context.Context) (net.Conn, error) { return nil, errors.New("no node") })
	defer client.Close()
	for name, cfg := range map[string]Config{
		"model": {Client: func() *api.Client { return client }, Hosts: func() bool { panic("broken model") }},
		"feed":  {Client: func() *api.Client { panic("broken feed") }, Hosts: func() bool { return false }},
	} {
		input, keys, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if name == "model" {
			if _, err := io.WriteString(keys, "q"); err != nil {
				t.Fatal(err)
			}
		}
		cfg.Input, cfg.Output, cfg.Again = input, out, func(context.Context) error { return nil }
		err = Run(t.Context(), cfg)
		if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: got %v, want the panic", name, err)
		}
		input.Close()
		keys.Close()
	}
}

// TestSearchInParts searches an output part by part; the search shows its progress, and ends at a
// key.
func TestSearchInParts(t *testing.T) {
	m := onTrial(100, 30, 40)
	log := m.shown().(*trialScreen).log
	log.out.total, log.out.ended = 1<<20, true
	from := []string{}
	a := holdQuestions(t, m, func(w http.ResponseWriter, r *http.Request) {
		offset := r.FormValue("offset")
		if from = append(from, offset); offset == "524288" {
			fmt.Fprint(w, `{"hits": [{"stream": "stdout", "offset": 140}]}`)
			return
		}
		next := map[string]int{"0": 262144, "262144": 524288}[offset]
		fmt.Fprintf(w, `{"hits": [], "next": %d}`, next)
	})
	log.busy = true // no other question
	press(m, "/epoch", "enter")
	a.answer()
	if text := strings.Join(m.frame(), "\n"); len(a.held) != 1 || !strings.Contains(text, "searching … 25 %") {
		t.Errorf("got %d questions\n%s", len(a.held), text)
	}
	if press(m, "esc"); !strings.Contains(strings.Join(m.frame(), "\n"), "searched 25 %") {
		t.Error("Esc does not end the search")
	}
	if a.answer(); len(a.held) > 0 {
		t.Error("the search goes on")
	}
	press(m, "n")
	a.answer()
	if a.answer(); len(log.search.hits) != 1 || strings.Join(from, " ") != "0 262144 262144 524288" {
		t.Errorf("got %d hits from searches at %v", len(log.search.hits), from)
	}
}

// TestHitsHaveABound steps through more hits than are kept: the first ones are dropped, and each
// step goes to the next hit.
func TestHitsHaveABound(t *testing.T) {
	m := onTrial(100, 30, 40)
	log := m.shown().(*trialScreen).log
	log.out.total, log.out.ended = 1<<20, true
	a := holdQuestions(t, m, func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.ParseInt(r.FormValue("offset"), 10, 64)
		part := api.LogHits{}
		for i := range int64(api.MaxHits) {
			part.Hits = append(part.Hits, api.LogHit{Stream: "stdout", Offset: from + i})
		}
		next := from + api.MaxHits
		part.Next = &next
		_ = json.NewEncoder(w).Encode(&part)
	})
	log.busy = true // no other question
	press(m, "/epoch", "enter")
	a.answer()
	for part := int64(2); part <= 2*hitsKept/api.MaxHits; part++ {
		log.search.hit = len(log.search.hits) - 1
		press(m, "n")
		a.answer()
		first := (part - 1) * api.MaxHits
		if len(log.search.hits) > hitsKept || log.goal == nil || log.goal.Offset != first ||
			log.search.hits[log.search.hit].Offset != first {
			t.Fatalf("after part %d: %d hits, at %+v, want at most %d, and to be at %d", part, len(log.search.hits),
				log.goal, hitsKept, first)
		}
	}
	if n := len(log.search.hits); n != hitsKept {
		t.Errorf("got %d hits, want %d", n, hitsKept)
	}
}

// TestAnswersToOldQueries delivers the answer for the old filter after the new filter is set.
func TestAnswersToOldQueries(t *testing.T) {
	m := onSweep(100, 30)
	s := m.shown().(*sweepScreen)
	a := holdQuestions(t, m, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"count": 1, "columns": [{"name": "index", "values": [7]}]}`)
	})
	s.trials.page.busy = false
	send(m, states{})
	press(m, "R") // the first question with the new order
	old := a.held
	press(m, "R")
	screens := len(m.screens)
	a.held = nil
	for _, q := range old {
		send(m, q(t.Context(), a.client))
	}
	if s.trials.page.known || len(a.held) != 1 || a.waits[len(a.waits)-1] != 0 {
		t.Errorf("the answer is shown: %v; then %d questions after %v", s.trials.page.known, len(a.held), a.waits)
	}
	if press(m, "enter"); len(m.screens) != screens {
		t.Error("Enter opens a trial that is not shown")
	}
	if a.answer(); !s.trials.page.known {
		t.Error("the answer is not shown")
	}
	s.trials.page.err = errors.New("broken")
	if text := strings.Join(m.frame(), "\n"); !strings.Contains(text, "broken") || !strings.Contains(text, ">  7") {
		t.Errorf("the rows are not shown below the error:\n%s", text)
	}
}

// TestLastIsPinned checks that last/17 stays on one sweep even after a newer one is submitted.
func TestLastIsPinned(t *testing.T) {
	m := press(busy(100, 30), ":last/17", "enter")
	s := m.shown().(*trialScreen)
	s.sweep = answered(sweepOf("chainer-3", grid.SweepRunning, 1, 0, 0, 0))
	var topics []string
	m.want = func(all []string) { topics = all }
	if send(m, states{}); m.shown().name() != "chainer-3/17" || !slices.Contains(topics, "trial:chainer-3/17") {
		t.Errorf("got %s with the topics %v", m.shown().name(), topics)
	}
}

// TestTwoDigits checks that rates are shown without exponents.
func TestTwoDigits(t *testing.T) {
	for v, want := range map[float64]string{
		99.4: "99/s", 99.6: "100/s", 9.96: "10/s", 1234.4: "1,234/s", 0.005: "18/h", 1.25: "1.2/s",
	} {
		if got := rate(v); got != want {
			t.Errorf("%g: got %s, want %s", v, got, want)
		}
	}
}

// TestNumberedTabs presses the key of a tab twice.
func TestNumberedTabs(t *testing.T) {
	m := onSweep(100, 30)
	for keys, want := range map[string]bool{"2": true, "22": true, "1": false, "211": false} {
		if press(m, keys); m.shown().(*sweepScreen).onFailures != want {
			t.Errorf("%s: the failures are shown: %v", keys, !want)
		}
	}
}

// TestOpenedWhileFrozen opens a screen while updates are paused: its data is requested once.
func TestOpenedWhileFrozen(t *testing.T) {
	m := press(busy(100, 30), " ")
	a := holdQuestions(t, m, nothing)
	if press(m, "enter"); len(a.held) != 1 {
		t.Fatalf("got %d questions, want one", len(a.held))
	}
	m.cluster.epoch++
	press(m, ":chainer-3/17", "enter")
	send(m, states{{Trial: &api.Trial{Trial: "chainer-3/17", Index: 17, State: grid.Running}}})
	send(m, states{{Trial: &api.Trial{Trial: "chainer-3/17", Index: 17, State: grid.Failed}}})
	if text := strings.Join(m.frame(), "\n"); !strings.Contains(text, "running") {
		t.Errorf("got\n%s", text)
	}
}

// TestPaste pastes text into the reason for a drain.
func TestPaste(t *testing.T) {
	m := send(press(busy(100, 30), "tab", "d"), tea.PasteMsg{Content: "new disk"})
	if m.dialog == nil || m.dialog.input.text != "new disk" {
		t.Errorf("got %+v", m.dialog)
	}
}

// TestBounds checks that few screens and few empty lines are kept.
func TestBounds(t *testing.T) {
	m := busy(100, 30)
	for i := range 3 * maxScreens {
		m.open(newTrialScreen(grid.TrialID{Sweep: "a-1", Index: int64(i)}))
	}
	if n := len(m.screens); n > maxScreens || m.screens[0].name() != "overview" {
		t.Errorf("got %d screens behind %s", n, m.screens[0].name())
	}
	var o output
	data := []byte(strings.Repeat("\n", 100*emptyKept) + "end\n")
	o.replace(&api.LogWindow{Next: int64(len(data)), Pieces: []api.LogPiece{{Stream: "stdout", Data: data}}})
	if n := len(o.lines); n > emptyKept+1 || string(o.lines[n-1].text) != "end" {
		t.Errorf("got %d lines", n)
	}
}
