package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// clockSlack is subtracted from times when output is searched by time.
const clockSlack = 5 * time.Second

// streamName returns the name of a stream of output in the API.
func streamName(s uint8) string {
	switch s {
	case 1:
		return "stdout"
	case 2:
		return "stderr"
	case 3:
		return "setup"
	}
	return "stream" + strconv.Itoa(int(s))
}

// reader passes on the output of a sweep, or of one of its runs, each byte once.
type reader struct {
	store *jetstream.Store
	sweep grid.SweepID
	run   string // "" means every run
	index int64  // -1 means every trial
	seen  api.SeenOutput
	next  uint64 // the first message that has not been read
	emit  func(*api.Output) error
}

// read passes on the output in the range; with Follow it continues until ctx ends.
func (r *reader) read(ctx context.Context, rng jetstream.LogRange) error {
	rng.First = max(rng.First, r.next)
	return r.store.Logs.Read(ctx, r.sweep, rng, func(seq uint64, chunks []jetstream.Chunk) error {
		for i := range chunks {
			c := &chunks[i]
			if (r.index >= 0 && c.Index != r.index) || (r.run != "" && c.Run != r.run) {
				continue
			}
			o := api.Output{
				Index: c.Index, Run: c.Run, Stream: streamName(c.Stream), Offset: c.Offset,
				Data: c.Data, Time: time.UnixMicro(c.Time).UTC(), Seq: seq,
			}
			if !r.seen.Fresh(&o) {
				continue
			}
			if err := r.emit(&o); err != nil {
				return err
			}
		}
		r.next = seq + 1
		return nil
	})
}

// until follows the output until rest is closed, then reads what had been stored by then.
func (r *reader) until(ctx context.Context, rng jetstream.LogRange, rest <-chan struct{}) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-rest:
			stop()
		case <-following.Done():
		}
	}()
	rng.Follow = true
	if err := r.read(following, rng); err != nil && following.Err() == nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rng.Follow = false
	return r.read(ctx, rng)
}

// outputHandlers stream the output of trials as it is stored.
type outputHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	views   *sweepViews
	rest    *quiescence
	log     *slog.Logger
}

// stream sends the stored output and, with follow, new output until the sweep or the trial is at
// rest.
func (h *outputHandlers) stream(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	index, err := trialIndex(s, r.FormValue("index"))
	if err != nil {
		sendError(w, err)
		return
	}
	number, err := attemptNumber(r.FormValue("attempt"))
	if err != nil {
		sendError(w, err)
		return
	}
	out := newLineWriter(w)
	rd := &reader{store: h.store, sweep: s.ID, index: index, emit: func(o *api.Output) error {
		if err := out.write(o); err != nil {
			return err
		}
		if r.FormValue("follow") != "true" {
			return nil
		}
		return out.flush()
	}}
	rng, err := h.logRange(r.Context(), rd, number)
	if err == nil {
		err = h.readLogs(r.Context(), rd, rng, r.FormValue("follow") == "true")
	}
	if err == nil {
		err = h.reportMissing(r.Context(), rd, number)
	}
	out.close(r.Context(), err)
}

// attemptNumber reads the number of an attempt, from 1; without one it is 0, which stands for the
// latest.
func attemptNumber(text string) (int, error) {
	if text == "" || text == "0" {
		return 0, nil
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 {
		return 0, &api.Error{
			Status: http.StatusBadRequest, Msg: fmt.Sprintf("%.60q is not the number of an attempt", text),
			Hint: "attempts are numbered from 1",
		}
	}
	return number, nil
}

func (h *outputHandlers) readLogs(ctx context.Context, rd *reader, rng *jetstream.LogRange, follow bool) error {
	switch {
	case follow:
		if rng == nil {
			rng = &jetstream.LogRange{}
		}
		rng.Last = 0
		return rd.until(ctx, *rng, h.rest.wait(ctx, rd.sweep, rd.index))
	case rng == nil:
		return nil
	}
	return rd.read(ctx, *rng)
}

// logRange returns the range of messages with the output of the reader's trial, or nil if there is
// none.
func (h *outputHandlers) logRange(ctx context.Context, rd *reader, number int) (*jetstream.LogRange, error) {
	if rd.index < 0 {
		return &jetstream.LogRange{}, nil
	}
	attempts, err := h.history.Attempts(ctx, grid.TrialID{Sweep: rd.sweep, Index: rd.index})
	if err != nil {
		return nil, fmt.Errorf("find attempts: %w", err)
	}
	a := pickAttempt(attempts, number)
	if a == nil && number > 0 {
		return nil, badRequest(fmt.Sprintf("trial %d has no attempt %d", rd.index, number),
			"see: mlfnode trials SWEEP/TRIAL")
	}
	if a == nil {
		return nil, nil
	}
	if number > 0 || a.Ended > 0 {
		rd.run = a.Run
	}
	if a.Ended > 0 && a.Result.Log.First == 0 {
		return nil, nil
	}
	if a.Result.Log.First > 0 {
		return &jetstream.LogRange{First: a.Result.Log.First, Last: a.Result.Log.Last}, nil
	}
	return &jetstream.LogRange{Since: time.UnixMicro(a.Started).Add(-clockSlack)}, nil
}

// pickAttempt returns the attempt with a number or, for 0, the one that determines the trial's
// state, else the latest.
func pickAttempt(attempts []history.Attempt, number int) *history.Attempt {
	var latest *history.Attempt
	for i := range attempts {
		a := &attempts[i]
		if number > 0 && a.Number != number {
			continue
		}
		if a.Outcome == history.IsResult {
			return a
		}
		if latest == nil || a.Number >= latest.Number {
			latest = a
		}
	}
	return latest
}
