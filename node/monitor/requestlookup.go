package monitor

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// lookup finds the sweep, the trial and the attempt that a request names.
type lookup struct {
	master  *master.Master
	history *history.DB
}

// sweep returns the sweep that a request names.
func (l *lookup) sweep(r *http.Request) (*grid.Sweep, error) {
	return l.byID(grid.SweepID(r.PathValue("sweep")))
}

func (l *lookup) byID(id grid.SweepID) (*grid.Sweep, error) {
	if id == api.Last {
		return l.newest()
	}
	rec, ok := l.master.Sweep(id)
	if !ok || rec.Sweep.Removing {
		if s, err := l.byName(string(id)); s != nil || err != nil {
			return s, err
		}
		return nil, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no sweep %q", id),
			Hint: "list them with: mlfnode sweeps"}
	}
	return rec.Sweep, nil
}

// byName returns the sweep to which its user gave a name, or nil if there is none.
func (l *lookup) byName(name string) (*grid.Sweep, error) {
	var found []*grid.Sweep
	for _, rec := range l.master.Sweeps() {
		if rec.Sweep.Name == name && name != "" && !rec.Sweep.Removing {
			found = append(found, rec.Sweep)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, s := range found {
		ids[i] = string(s.ID)
	}
	slices.Sort(ids)
	return nil, &api.Error{Status: http.StatusConflict, Msg: fmt.Sprintf("%d sweeps are named %q", len(found), name),
		Hint: "name one by its id: " + strings.Join(ids[:min(len(ids), 12)], ", ")}
}

func (l *lookup) newest() (*grid.Sweep, error) {
	var newest *grid.Sweep
	for _, rec := range l.master.Sweeps() {
		if rec.Sweep.Removing {
			continue
		}
		if newest == nil || rec.Sweep.Compare(newest) > 0 {
			newest = rec.Sweep
		}
	}
	if newest == nil {
		return nil, &api.Error{Status: http.StatusNotFound, Msg: "there are no sweeps yet",
			Hint: "start one with: mlfnode sweep PROJECT"}
	}
	return newest, nil
}

// trialIndex parses the index of a trial of s; "" and -1 stand for all trials and return -1.
func trialIndex(s *grid.Sweep, text string) (int64, error) {
	if text == "" || text == "-1" {
		return -1, nil
	}
	index, err := strconv.ParseInt(text, 10, 64)
	if err == nil && index >= 0 && index < s.Space.Count() {
		return index, nil
	}
	trials := "trials"
	if s.Space.Count() == 1 {
		trials = "trial"
	}
	return 0, &api.Error{
		Status: http.StatusNotFound,
		Msg:    fmt.Sprintf("%s has %d %s, and no trial %s", s.ID, s.Space.Count(), trials, text),
		Hint:   fmt.Sprintf("list them with: mlfnode trials %s", s.ID),
	}
}

// trial returns the trial that a request names, and its sweep.
func (l *lookup) trial(r *http.Request) (*grid.Sweep, int64, error) {
	s, err := l.sweep(r)
	if err != nil {
		return nil, 0, err
	}
	index, err := trialIndex(s, r.PathValue("index"))
	if err == nil && index < 0 {
		err = &api.Error{Status: http.StatusNotFound,
			Msg: fmt.Sprintf("%s has no trial %s", s.ID, r.PathValue("index")), Hint: "trials are numbered from 0"}
	}
	return s, index, err
}

// trialLog returns the attempt whose output or files a request asks for.
func (l *lookup) trialLog(r *http.Request) (*trialLog, error) {
	s, index, err := l.trial(r)
	if err != nil {
		return nil, err
	}
	number, err := attemptNumber(r.FormValue("attempt"))
	if err != nil {
		return nil, err
	}
	id := grid.TrialID{Sweep: s.ID, Index: index}
	attempts, err := l.history.Attempts(r.Context(), id)
	if err != nil {
		return nil, fmt.Errorf("find attempts: %w", err)
	}
	a := pickAttempt(attempts, number)
	if a == nil && number > 0 {
		return nil, &api.Error{
			Status: http.StatusNotFound, Msg: fmt.Sprintf("trial %d has no attempt %d", index, number),
			Hint: "see: mlfnode trials SWEEP/TRIAL",
		}
	}
	t := &trialLog{sweep: id.Sweep, index: id.Index}
	if a != nil {
		t.number, t.run, t.node, t.ended, t.ref = a.Number, a.Run, a.Node, a.Ended > 0, a.Result.Log
		t.since = time.UnixMicro(a.Started).Add(-clockSlack)
	}
	return t, nil
}

// trialStream returns the attempt whose output a request asks for, and the number of the stream; 0
// means all.
func (l *lookup) trialStream(r *http.Request) (*trialLog, uint8, error) {
	t, err := l.trialLog(r)
	if err != nil {
		return nil, 0, err
	}
	stream, err := streamNumber(r.FormValue("stream"))
	return t, stream, err
}
