package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

const (
	mediaEvents = "text/event-stream"

	maxEventStreams = 256 // of all clients
	maxEventsOfOne  = 32  // streams of one token or session
	maxTopics       = 32  // of one stream
	maxAllTopics    = 256 // different ones, of all streams

	eventsPatience = 10 * time.Second // for a client to take what is written
	heartBeat      = 15 * time.Second // of a stream on which nothing happens
	eventsRetry    = 2 * time.Second  // after which a client comes back
)

// events streams the states of topics.
func (m *Monitor) events(w http.ResponseWriter, r *http.Request) {
	topics, err := m.topics(r.FormValue("topics"))
	if err != nil {
		refuse(w, err)
		return
	}
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // absent is the beginning
	c, err := m.hub.join(principalOf(r.Context()).name, topics, last)
	if err != nil {
		w.Header().Set("Retry-After", strconv.Itoa(int(eventsRetry.Seconds())))
		refuse(w, err)
		return
	}
	defer m.hub.leave(c)
	w.Header().Set("Content-Type", mediaEvents)
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	fmt.Fprintf(w, "retry: %d\n\n", eventsRetry.Milliseconds())
	beat := time.NewTicker(heartBeat)
	defer beat.Stop()
	leaving := leavingOf(r.Context())
	for {
		if err := out.Flush(); err != nil {
			return
		}
		err := error(nil)
		select {
		case <-c.wake:
			err = writeEvents(w, m.hub.take(c))
		case <-beat.C:
			_, err = io.WriteString(w, ": hb\n\n")
		case <-leaving:
			bye, _ := json.Marshal(api.Bye{Reason: "the node stops"})
			_ = writeEvents(w, []*topicState{{name: "bye", data: bye}})
			_ = out.Flush() // the client has gone if this fails
			return
		case <-r.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func writeEvents(w io.Writer, all []*topicState) error {
	for _, s := range all {
		if s.id > 0 {
			if _, err := fmt.Fprintf(w, "id: %d\n", s.id); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", s.name, s.data); err != nil {
			return err
		}
	}
	return nil
}

// topics reads what a client asks for.
func (m *Monitor) topics(text string) ([]topic, error) {
	var all []topic
	for name := range strings.SplitSeq(text, ",") {
		kind, of, _ := strings.Cut(name, ":")
		t := topic{kind: kind}
		id, index, trial := strings.Cut(of, "/")
		switch {
		case kind == "overview" && of == "", kind == "nodes" && of == "" && m.cfg.Members != nil:
		case kind == "nodes" && of == "":
			return nil, errAlone
		case kind == "sweep" && !trial, kind == "trial" && trial:
			s, err := m.recordOf(grid.SweepID(id))
			if err != nil {
				return nil, err
			}
			t.sweep = s.ID
			if trial {
				if t.index, err = trialIndex(s, index); err != nil {
					return nil, err
				}
				if t.index < 0 {
					return nil, notTopic(name)
				}
			}
		default:
			return nil, notTopic(name)
		}
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	if len(all) > maxTopics {
		return nil, badRequest(fmt.Sprintf("%d topics are asked for, and at most %d can be", len(all), maxTopics), "")
	}
	return all, nil
}

func notTopic(name string) error {
	return badRequest(fmt.Sprintf("%.60q is not a topic", name), "topics are overview, nodes, sweep:ID and trial:ID/INDEX, with commas between them")
}

// errCrowded is the answer to one stream too many.
func errCrowded(what string) error {
	return &api.Error{Status: http.StatusServiceUnavailable, Msg: what, Hint: "close other pages, or try again later"}
}

// observe gives the states of a topic as they are now, by key.
func (m *Monitor) observe(ctx context.Context, t topic, rates *rates) (map[string]observed, error) {
	all := map[string]observed{}
	switch t.kind {
	case "overview":
		return m.overview(ctx, rates)
	case "nodes":
		names := []grid.NodeID{}
		for _, member := range m.cfg.Members() {
			all["node:"+string(member.Node)] = observed{"node", member}
			names = append(names, member.Node)
		}
		slices.Sort(names)
		all["members"] = observed{"members", names}
	case "sweep":
		v, err := m.sweepState(ctx, t.sweep, rates)
		if err != nil {
			return nil, err
		}
		all["sweep:"+string(t.sweep)] = observed{"sweep", v}
	case "trial":
		v, err := m.trialState(ctx, grid.TrialID{Sweep: t.sweep, Index: t.index})
		if err != nil {
			return nil, err
		}
		all["trial:"+v.Trial] = observed{"trial", v}
	}
	return all, nil
}

// observed is a state with the name of its event.
type observed struct {
	name  string
	value any
}

// overview gives what the cluster does, and the state of each sweep of which something runs or will, and of one that has just come to
// its end.
func (m *Monitor) overview(ctx context.Context, rates *rates) (map[string]observed, error) {
	o := &api.Overview{Problem: m.cfg.Master.Problem()}
	all := map[string]observed{"overview": {"overview", o}}
	nowMoving := map[grid.SweepID]bool{}
	for _, rec := range m.cfg.Master.Sweeps() {
		s := rec.Sweep
		if s.Removing {
			continue
		}
		c, err := m.cfg.History.Counts(ctx, s.ID)
		if err != nil {
			return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
		}
		o.Sweeps++
		o.Running += c.Running
		o.Succeeded += c.Succeeded
		o.Failed += c.Failed
		if s.Active() {
			o.Active++
			o.Pending += max(0, s.Space.Count()-c.Running-c.Done())
		}
		if moving := s.Active() || c.Running > 0; moving || rates.moving[s.ID] {
			nowMoving[s.ID] = moving
			all["sweep:"+string(s.ID)] = observed{"sweep", m.stateOf(ctx, s, &c, rates)}
		}
	}
	rates.moving = nowMoving // not before: a look that fails must not lose the end of a sweep
	return all, nil
}

func (m *Monitor) sweepState(ctx context.Context, id grid.SweepID, rates *rates) (*api.SweepState, error) {
	rec, ok := m.cfg.Master.Sweep(id)
	if !ok || rec.Sweep.Removing {
		return &api.SweepState{SweepCounts: api.SweepCounts{Sweep: id, State: sweepRemoved}}, nil
	}
	s := rec.Sweep
	c, err := m.cfg.History.Counts(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", id, err)
	}
	return m.stateOf(ctx, s, &c, rates), nil
}

func (m *Monitor) stateOf(ctx context.Context, s *grid.Sweep, c *history.Counts, rates *rates) *api.SweepState {
	v := counted(s, c)
	state := &api.SweepState{SweepCounts: v.SweepCounts}
	if s.Active() {
		state.Rate = rates.of(s.ID, c.Done(), time.Now())
		if rest := m.remaining(ctx, s, &v); rest != nil {
			seconds := float64(int64(*rest))
			state.ETA = &seconds
		}
	}
	return state
}

// What is not kept any more has a state of its own, in events alone.
const (
	sweepRemoved grid.SweepState = "removed"
	trialRemoved grid.State      = "removed"
)

// trialState gives a trial, also one whose sweep has been removed.
func (m *Monitor) trialState(ctx context.Context, id grid.TrialID) (*api.Trial, error) {
	rec, ok := m.cfg.Master.Sweep(id.Sweep)
	if !ok || rec.Sweep.Removing {
		return &api.Trial{Trial: id.String(), Index: id.Index, State: trialRemoved, Params: space.Params{}, Metrics: grid.Metric{}}, nil
	}
	t, known, err := m.cfg.History.Trial(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", id, err)
	}
	if !known {
		t = grid.Trial{Index: id.Index, State: (&listing{sweep: rec.Sweep}).unknownState()}
	}
	v := wire(rec.Sweep, &t)
	kept := m.keptOutput(ctx)
	v.Output = printed(t.Result.Log, kept.First(t.Node))
	if v.State == grid.Running {
		v.Usage.Wall = 0 // it would be another state each moment
	}
	return v, nil
}

// rates tell how fast sweeps go on. They belong to the hub's goroutine.
type rates struct {
	marks  map[grid.SweepID][2]mark
	moving map[grid.SweepID]bool // sweeps that the overview had last; true for those of which something ran or would
}

// mark is how many trials had ended at a time.
type mark struct {
	at   time.Time
	done int64
}

// rateSpan is about how far back a rate looks.
const rateSpan = 10 * time.Second

// prune forgets the sweeps that have not been looked at for a while: they have come to their end, or nobody wants them.
func (r *rates) prune(now time.Time) {
	maps.DeleteFunc(r.marks, func(_ grid.SweepID, m [2]mark) bool { return now.Sub(m[1].at) > 3*rateSpan })
}

func (r *rates) of(id grid.SweepID, done int64, now time.Time) float64 {
	marks, ok := r.marks[id]
	if !ok || done < marks[0].done { // trials that are run again count as not ended
		marks = [2]mark{{now, done}, {now, done}}
	}
	if now.Sub(marks[1].at) > rateSpan {
		marks = [2]mark{marks[1], {now, done}}
	}
	r.marks[id] = marks
	span := now.Sub(marks[0].at).Seconds()
	if span < 1 {
		return 0
	}
	return float64(int64(1000*float64(done-marks[0].done)/span)) / 1000
}

// leavingOf gives what is closed when the server of a request ends.
func leavingOf(ctx context.Context) <-chan struct{} {
	leaving, _ := ctx.Value(leavingKey{}).(<-chan struct{})
	return leaving
}

type leavingKey struct{}
