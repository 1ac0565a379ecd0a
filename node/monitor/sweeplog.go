package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/monitor/chart"
)

const (
	// placeBits is the number of low bits of a position that identify a piece in a message; the
	// bits above are the number of the message.
	placeBits = 16
	// pieceCost is the overhead of a piece in an answer, in bytes.
	pieceCost = 160
	// backStep is the number of messages that are read first when reading backwards.
	backStep = 16
	// searchedRuns is the number of runs whose unfinished lines a search keeps.
	searchedRuns = 4096
)

// sweepOutput is the output of a sweep, or of some of its trials.
type sweepOutput struct {
	logs   *jetstream.Logs
	sweep  *grid.Sweep
	stream uint8   // 0 means all
	part   bool    // only the selected trials
	trials []int64 // the selected ones, ascending
	seen   api.SeenOutput
}

// sweepOutput returns the output that a request asks for.
func (h *logHandlers) sweepOutput(r *http.Request) (*sweepOutput, error) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		return nil, err
	}
	o := &sweepOutput{logs: h.store.Logs, sweep: s}
	if o.stream, err = streamNumber(r.FormValue("stream")); err != nil {
		return nil, err
	}
	where, err := chart.ParseWhere(r.URL.Query())
	if err != nil {
		return nil, chartError(err)
	}
	if o.part = len(where.Query()) > 0; !o.part {
		return o, nil
	}
	leave, err := h.charts.cache.compute.acquire(r.Context())
	if err != nil {
		return nil, err
	}
	defer leave()
	v, err := h.charts.view(r.Context(), s, "", "", where, minAge)
	if err != nil {
		return nil, chartError(err)
	}
	o.trials, _, _ = v.view.Trials(chart.Order{By: "index"})
	return o, nil
}

// read calls piece for the output between two positions, each byte once, and returns the position
// after the last piece that it has read. errEnough from piece ends the reading before that piece.
// If ctx ends, read returns how far it got.
func (o *sweepOutput) read(ctx context.Context, from, to int64, piece func(*api.SweepPiece) error) (int64, error) {
	if from >= to || o.part && len(o.trials) == 0 {
		return to, nil
	}
	next := from
	rng := jetstream.LogRange{First: uint64(max(1, from>>placeBits)), Last: uint64((to - 1) >> placeBits)}
	err := o.logs.Read(ctx, o.sweep.ID, rng, func(seq uint64, chunks []jetstream.Chunk) error {
		for i := range chunks {
			c := &chunks[i]
			at := int64(seq)<<placeBits | int64(min(i, 1<<placeBits-1))
			if at < from || at >= to || o.stream > 0 && c.Stream != o.stream {
				continue
			}
			if _, selected := slices.BinarySearch(o.trials, c.Index); o.part && !selected {
				continue
			}
			out := api.Output{Run: c.Run, Stream: streamName(c.Stream), Offset: c.Offset, Data: c.Data}
			if !o.seen.Fresh(&out) {
				continue
			}
			next = at
			p := api.SweepPiece{Position: at, Index: c.Index, Run: c.Run,
				LogPiece: api.LogPiece{Stream: out.Stream, Offset: out.Offset,
					Time: time.UnixMicro(c.Time).UTC(), Data: out.Data}}
			if err := piece(&p); err != nil {
				return err
			}
		}
		next = int64(seq+1) << placeBits
		return nil
	})
	switch {
	case err == nil:
		return to, nil
	case errors.Is(err, errEnough):
		return next, nil
	}
	return next, err
}

// before returns the last pieces before a position, about limit bytes, and the position from which
// on they are complete. It reads increasingly long ranges. With an error, such as the end of ctx,
// it returns what it has.
func (o *sweepOutput) before(
	ctx context.Context, first, to, limit int64,
) (pieces []api.SweepPiece, from int64, err error) {
	from = to
	for step := int64(backStep); from > first; step *= 4 {
		lo := max(first, (from>>placeBits-step)<<placeBits)
		var part lastPieces
		o.seen = api.SeenOutput{}
		if _, err := o.read(ctx, lo, from,
			func(p *api.SweepPiece) error { part.add(p, limit); return nil }); err != nil {
			return pieces, from, err
		}
		part.pieces = append(part.pieces, pieces...)
		for _, p := range pieces {
			part.cost += costOf(&p)
		}
		part.trim(limit)
		pieces, from = part.pieces, lo
		if part.cut {
			return pieces, pieces[0].Position, nil
		}
	}
	return pieces, from, nil
}

// lastPieces keeps the last pieces, up to a number of bytes.
type lastPieces struct {
	pieces []api.SweepPiece
	cost   int64
	cut    bool // there were more
}

func costOf(p *api.SweepPiece) int64 { return int64(len(p.Data)) + pieceCost }

func (l *lastPieces) add(p *api.SweepPiece, limit int64) {
	l.pieces = append(l.pieces, cloneTail(p, limit))
	l.cost += costOf(&l.pieces[len(l.pieces)-1])
	l.trim(limit)
}

func (l *lastPieces) trim(limit int64) {
	n := 0
	for ; l.cost > limit && n < len(l.pieces)-1; n++ {
		l.cost -= costOf(&l.pieces[n])
		l.cut = true
	}
	l.pieces = l.pieces[n:]
}

// cloneTail returns a copy of a piece, or of its end if it is longer than limit.
func cloneTail(p *api.SweepPiece, limit int64) api.SweepPiece {
	c := *p
	if over := int64(len(c.Data)) - limit; over > 0 {
		c.Data, c.Offset = c.Data[over:], c.Offset+over
	}
	c.Data = append([]byte(nil), c.Data...)
	return c
}

// sweepWindow answers with a part of the output of a sweep.
func (h *logHandlers) sweepWindow(r *http.Request) (api.SweepLog, error) {
	w := api.SweepLog{Pieces: []api.SweepPiece{}}
	limit, err := intParam(r, "limit", api.DefaultWindow, 1, api.MaxWindow)
	if err != nil {
		return w, err
	}
	from, err := intParam(r, "from", -1, 0, maxOffset)
	if err != nil {
		return w, err
	}
	before, err := intParam(r, "before", maxOffset, 0, maxOffset)
	if err != nil {
		return w, err
	}
	o, err := h.sweepOutput(r)
	if err != nil {
		return w, err
	}
	leave, err := h.indexes.readers.acquire(r.Context())
	if err != nil {
		return w, err
	}
	defer leave()
	// determined before the end of the output
	if w.Ended, err = h.rest.reached(r.Context(), o.sweep.ID, -1); err != nil {
		return w, err
	}
	if w.First, w.Total, err = o.bounds(r.Context()); err != nil {
		return w, err
	}
	_, err = withPartialResult(r.Context(), h.indexes.timeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, o.window(ctx, &w, from, min(max(before, w.First), w.Total), limit)
	})
	if err != nil {
		return w, fmt.Errorf("read the output of %s: %w", o.sweep.ID, err)
	}
	return w, nil
}

// window fills a window that begins at a position or, if from is -1, ends before another one.
func (o *sweepOutput) window(ctx context.Context, w *api.SweepLog, from, before, limit int64) error {
	if from < 0 {
		pieces, from, err := o.before(ctx, w.First, before, limit)
		w.Pieces, w.From, w.Next = append(w.Pieces, pieces...), from, before
		return err
	}
	cost, err := int64(0), error(nil)
	w.From = min(max(from, w.First), w.Total)
	w.Next, err = o.read(ctx, w.From, w.Total, func(p *api.SweepPiece) error {
		if cost += costOf(p); cost > limit && len(w.Pieces) > 0 {
			return errEnough
		}
		w.Pieces = append(w.Pieces, cloneTail(p, limit))
		return nil
	})
	return err
}

// bounds returns the position of the oldest stored output, and the position after the newest.
func (o *sweepOutput) bounds(ctx context.Context) (first, end int64, err error) {
	oldest, err := o.logs.First(ctx)
	if err != nil {
		return 0, 0, err
	}
	next, err := o.logs.Next(ctx)
	return int64(min(oldest, next)) << placeBits, int64(next) << placeBits, err
}

// searchSweep finds a text in the output of a sweep.
func (h *logHandlers) searchSweep(r *http.Request) (api.SweepHits, error) {
	out := api.SweepHits{Hits: []api.SweepHit{}}
	of, err := searchOf(r)
	if err != nil {
		return out, err
	}
	from, err := intParam(r, "from", 0, 0, maxOffset)
	if err != nil {
		return out, err
	}
	o, err := h.sweepOutput(r)
	if err != nil {
		return out, err
	}
	leave, err := h.indexes.readers.acquire(r.Context())
	if err != nil {
		return out, err
	}
	defer leave()
	first, end, err := o.bounds(r.Context())
	if err != nil {
		return out, err
	}
	runs := map[string]*runSearch{}
	next, err := withPartialResult(r.Context(), h.indexes.timeout, func(ctx context.Context) (int64, error) {
		return o.read(ctx, max(from, first), end, func(p *api.SweepPiece) error {
			return of.addPiece(ctx, p, runs, &out)
		})
	})
	if err != nil {
		return out, fmt.Errorf("search the output of %s: %w", o.sweep.ID, err)
	}
	finishRuns(runs, &out)
	if next < end {
		out.Next = &next
	}
	return out, nil
}

// addPiece searches a piece of one of several runs.
func (s *search) addPiece(
	ctx context.Context, p *api.SweepPiece, runs map[string]*runSearch, out *api.SweepHits,
) error {
	if ctx.Err() != nil || len(out.Hits) >= s.limit {
		return errEnough
	}
	run := runs[p.Run]
	if run == nil {
		if len(runs) >= searchedRuns {
			finishRuns(runs, out)
		}
		run = &runSearch{search: search{textFinder: &textFinder{text: s.text, exact: s.exact}, limit: api.MaxHits},
			index: p.Index, run: p.Run}
		runs[p.Run] = run
	}
	out.Searched += int64(len(p.Data))
	run.position = p.Position
	stream, _ := streamNumber(p.Stream) // it comes from streamName
	run.add(stream, p.Offset, p.Data)
	run.moveHits(run.hits, out)
	return nil
}

// runSearch is the search in the output of one run, up to a position.
type runSearch struct {
	search
	index    int64
	run      string
	position int64
}

func (s *runSearch) moveHits(hits []api.LogHit, out *api.SweepHits) {
	for _, h := range hits {
		out.Hits = append(out.Hits, api.SweepHit{Position: s.position, Index: s.index, Run: s.run, LogHit: h})
	}
	s.hits = s.hits[:0]
}

// finishRuns searches the incomplete lines of all runs and drops them.
func finishRuns(runs map[string]*runSearch, out *api.SweepHits) {
	last := len(out.Hits)
	for _, s := range runs {
		s.moveHits(s.finish(), out)
	}
	slices.SortStableFunc(out.Hits[last:], func(a, b api.SweepHit) int { return int(a.Position - b.Position) })
	clear(runs)
}
