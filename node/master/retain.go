package master

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// retainInterval is how often old sweeps are looked for, besides each start.
const retainInterval = 10 * time.Minute

// retain removes ended sweeps that the retention no longer covers.
func (m *Master) retain(ctx context.Context) error {
	if !m.cfg.Feed {
		return nil
	}
	tick := time.NewTicker(retainInterval)
	defer tick.Stop()
	for {
		for _, r := range m.outdated(time.Now()) {
			if err := m.remove(ctx, r.Sweep); err != nil && ctx.Err() == nil {
				m.log.Warn("old sweep could not be removed and is tried again later", "sweep", r.Sweep.ID, "err", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// outdated lists the ended sweeps beyond the retention.
func (m *Master) outdated(now time.Time) []jetstream.Record {
	var ended []jetstream.Record
	for _, r := range m.Sweeps() {
		if s := r.Sweep.State; s == grid.SweepFinished || s == grid.SweepCancelled {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b jetstream.Record) int { return b.Sweep.Ended.Compare(a.Sweep.Ended) })
	m.mu.Lock()
	retention := m.retention
	m.mu.Unlock()
	keep := len(ended)
	if n := retention.Sweeps; n > 0 {
		keep = min(keep, n)
	}
	if age := retention.Age; age > 0 {
		for keep > 0 && now.Sub(ended[keep-1].Sweep.Ended) > age {
			keep--
		}
	}
	return ended[keep:]
}

// remove takes everything of a sweep out of the store. The record goes last, so that a crash in between is made good by the
// next round.
func (m *Master) remove(ctx context.Context, s *grid.Sweep) error {
	store := m.cfg.Store
	if err := store.Artifacts.DeleteAll(ctx, string(s.ID)+"/"); err != nil {
		return fmt.Errorf("remove artifacts of %s: %w", s.ID, err)
	}
	if err := store.Logs.PurgeSweep(ctx, s.ID); err != nil {
		return fmt.Errorf("remove output of %s: %w", s.ID, err)
	}
	if err := store.Events.PurgeSweep(ctx, s.ID); err != nil {
		return fmt.Errorf("remove events of %s: %w", s.ID, err)
	}
	if err := m.cfg.History.Remove(ctx, s.ID); err != nil {
		return fmt.Errorf("remove history of %s: %w", s.ID, err)
	}
	if err := m.removeBundle(ctx, s); err != nil {
		return err
	}
	if err := store.Records.Delete(ctx, s.ID); err != nil {
		return fmt.Errorf("remove record of %s: %w", s.ID, err)
	}
	m.note(jetstream.Change{ID: s.ID, Deleted: true})
	m.log.Info("old sweep removed", "sweep", s.ID)
	return nil
}

// removeBundle removes the sweep's bundle unless another sweep uses it.
func (m *Master) removeBundle(ctx context.Context, s *grid.Sweep) error {
	if s.Bundle == "" {
		return nil
	}
	select {
	case m.submitting <- struct{}{}:
		defer func() { <-m.submitting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, r := range m.Sweeps() {
		if r.Sweep.ID != s.ID && r.Sweep.Bundle == s.Bundle {
			return nil
		}
	}
	if err := m.cfg.Store.Bundles.Delete(ctx, s.Bundle); err != nil {
		return fmt.Errorf("remove bundle of %s: %w", s.ID, err)
	}
	return nil
}
