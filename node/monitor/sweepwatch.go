package monitor

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// progressInterval is the minimum time between two counts in a watch.
const progressInterval = 100 * time.Millisecond

// watch streams the output and the counts of a sweep until it is at rest.
func (h *outputHandlers) watch(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	after, _ := strconv.ParseUint(r.FormValue("after"), 10, 64) // absent means from the sweep's first output
	v := &sweepWatch{outputHandlers: h, id: s.ID, out: newLineWriter(w)}
	v.out.close(r.Context(), v.run(r.Context(), after))
}

// sweepWatch is one client that watches a sweep. Output and counts come from two goroutines.
type sweepWatch struct {
	*outputHandlers
	id grid.SweepID

	mu  sync.Mutex
	out *lineWriter
}

func (v *sweepWatch) run(ctx context.Context, after uint64) error {
	if err := v.count(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	rest := v.rest.wait(ctx, v.id, -1)
	var counting sync.WaitGroup
	counting.Go(func() {
		if err := v.counts(ctx, rest); err != nil {
			stop(err)
		}
	})
	rd := &reader{store: v.store, sweep: v.id, index: -1, emit: v.output}
	err := rd.until(ctx, jetstream.LogRange{First: after}, rest)
	counting.Wait()
	if err != nil {
		return err
	}
	return v.count(ctx)
}

func (v *sweepWatch) output(o *api.Output) error { return v.put(api.Update{Output: o}) }

func (v *sweepWatch) put(u api.Update) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.out.write(u); err != nil {
		return err
	}
	return v.out.flush()
}

// count sends the current state of the sweep.
func (v *sweepWatch) count(ctx context.Context) error {
	rec, ok := v.master.Sweep(v.id)
	if !ok {
		return nil
	}
	s, err := v.views.of(ctx, rec.Sweep)
	if err != nil {
		return err
	}
	return v.put(api.Update{Sweep: &s})
}

// counts sends the sweep whenever something changes, until it is at rest.
func (v *sweepWatch) counts(ctx context.Context, rest <-chan struct{}) error {
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		moved := v.master.Changed()
		if err := v.count(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-rest:
			return nil
		case <-ctx.Done():
			return nil
		}
		select {
		case <-moved:
		case <-rest:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
