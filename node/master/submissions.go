package master

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// submissions stores new sweeps.
type submissions struct {
	m         *Master
	lock      chan struct{}           // held by a submission, and by the removal of a bundle
	uncertain map[string]grid.SweepID // by token: submissions that may have been stored; guarded by lock
}

// Submit stores a new sweep and returns when its record is on disk. It answers a submission that
// was stored already, recognised by its token, with the stored sweep.
func (q *submissions) Submit(ctx context.Context, s *api.Submit) (jetstream.Record, error) {
	if err := s.Task.Template().Check(s.Space.Keys()); err != nil {
		return jetstream.Record{}, conflict(err.Error(), "")
	}
	if err := q.m.cfg.Capacity.check(ctx, &s.Task); err != nil {
		return jetstream.Record{}, err
	}
	// One at a time: a submission that is sent again while the first is on its way to the disk is
	// the same sweep, and a bundle must not be removed between the check for it and the record that
	// names it.
	unlock, err := q.lockSubmissions(ctx)
	if err != nil {
		return jetstream.Record{}, err
	}
	defer unlock()
	if r, ok := q.findSubmitted(ctx, s.Token); ok {
		return r, nil
	}
	if err := q.checkBundle(ctx, s.Bundle); err != nil {
		return jetstream.Record{}, err
	}
	for {
		n, err := q.m.cfg.Store.Records.NextNumber(ctx, s.Project)
		if err != nil {
			return jetstream.Record{}, fmt.Errorf("number sweep of %s: %w", s.Project, err)
		}
		sweep := &grid.Sweep{
			V: grid.RecordVersion, ID: grid.SweepID(fmt.Sprintf("%s-%d", s.Project, n)), Number: 1,
			Project: s.Project, Name: s.Name, Token: s.Token, Origin: s.Origin, Task: s.Task, Bundle: s.Bundle,
			State: grid.SweepRunning, Priority: s.Priority, MaxParallel: s.MaxParallel,
			Submitted: time.Now().UTC(), Environ: s.Environ, EnvironAdded: s.EnvironAdded,
		}
		if err := sweep.SetSpace(s.Space); err != nil {
			return jetstream.Record{}, err
		}
		if q.m.cfg.Nodes != nil {
			sweep.Task.Retries = sweep.Task.Retries.InCluster()
		}
		for _, r := range q.m.Sweeps() {
			sweep.Number = max(sweep.Number, r.Sweep.Number+1)
		}
		rev, err := q.m.cfg.Store.Records.Create(ctx, sweep)
		if errors.Is(err, jetstream.ErrExists) {
			continue
		}
		if err != nil {
			if errors.Is(err, jetstream.ErrTooLarge) {
				return jetstream.Record{}, &api.Error{Status: http.StatusRequestEntityTooLarge, Msg: err.Error()}
			}
			q.recordUncertain(s.Token, sweep.ID)
			return jetstream.Record{}, fmt.Errorf("store sweep %s: %w", sweep.ID, err)
		}
		r := jetstream.Record{Sweep: sweep, Rev: rev}
		q.m.storeRecord(jetstream.Change{ID: sweep.ID, Record: r})
		return r, nil
	}
}

// checkBundle refuses a submission whose bundle is not stored.
func (q *submissions) checkBundle(ctx context.Context, digest string) error {
	if digest == "" {
		return nil
	}
	ok, err := q.m.cfg.Store.Bundles.Has(ctx, digest)
	if err == nil && !ok {
		err = &api.Error{
			Status: http.StatusConflict, Code: api.CodeNoBundle,
			Msg: "the bundle " + digest + " is not stored", Hint: "submit again",
		}
	}
	return err
}

// findSubmitted returns the sweep that was submitted with a token.
func (q *submissions) findSubmitted(ctx context.Context, token string) (jetstream.Record, bool) {
	if token == "" {
		return jetstream.Record{}, false
	}
	for _, r := range q.m.Sweeps() {
		if r.Sweep.Token == token {
			return r, true
		}
	}
	// A record that failed to be stored may be stored after all, without the watcher having
	// delivered it yet.
	if id := q.uncertain[token]; id != "" {
		if r, err := q.m.cfg.Store.Records.Load(ctx, id); err == nil && r.Sweep.Token == token {
			q.m.storeRecord(jetstream.Change{ID: id, Record: r})
			return r, true
		}
	}
	return jetstream.Record{}, false
}

// maxUncertain bounds the submissions that are remembered because it is not known whether they were
// stored.
const maxUncertain = 1000

func (q *submissions) recordUncertain(token string, id grid.SweepID) {
	if len(q.uncertain) >= maxUncertain {
		clear(q.uncertain)
	}
	q.uncertain[token] = id
}

// lockSubmissions blocks submissions until unlock is called.
func (q *submissions) lockSubmissions(ctx context.Context) (unlock func(), err error) {
	select {
	case q.lock <- struct{}{}:
		return func() { <-q.lock }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
