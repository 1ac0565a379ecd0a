package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

const (
	// retainInterval is how often outdated sweeps are looked for, in addition to each start.
	retainInterval = 10 * time.Minute
	// spaceInterval is how often the master checks whether a part of the store is nearly full. If
	// so, it looks for outdated sweeps immediately.
	spaceInterval = 5 * time.Second
)

// collector removes sweeps that have ended, and other data that nothing needs any more.
type collector struct {
	m         *Master
	snapshots *trialSnapshots
	runNow    poll.Signal // makes run remove outdated sweeps immediately
}

// run removes ended sweeps that the retention no longer covers, and data that belongs to
// no sweep. ready is when the master became ready.
func (c *collector) run(ctx context.Context, ready time.Time) error {
	if !c.m.cfg.LeaseTrials {
		return nil
	}
	tick, room := time.NewTicker(retainInterval), time.NewTicker(spaceInterval)
	defer tick.Stop()
	defer room.Stop()
	c.removeOutdated(ctx)
	c.snapshots.clean(true, 0)
	c.removeOrphans(ctx, false, ready) // a client that sent a bundle before this master started sends it again
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.runNow:
			c.removeOutdated(ctx)
		case <-tick.C:
			c.removeOutdated(ctx)
			c.removeOrphans(ctx, false, time.Now().Add(-orphanAge))
			c.snapshots.clean(true, 0)
		case <-room.C:
			c.freeSpace(ctx)
			c.snapshots.clean(false, 0)
		}
	}
}

func (c *collector) removeOutdated(ctx context.Context) {
	for _, r := range c.outdated(time.Now()) {
		if err := c.removeEnded(ctx, r.Sweep.ID); err != nil && ctx.Err() == nil {
			c.m.log.Warn("outdated sweep could not be removed; trying again later", "sweep", r.Sweep.ID, "err", err)
		}
	}
}

// freeSpace removes what it may when a part of the store is nearly full, and says what a person can
// do when that was not enough.
func (c *collector) freeSpace(ctx context.Context) {
	tight := c.nearlyFull(ctx)
	if len(tight) > 0 && (c.m.currentSpaceProblem() == "" || len(c.outdated(time.Now())) > 0) {
		c.removeOutdated(ctx)
		c.removeOrphans(ctx, true, time.Now().Add(-orphanAgeWhenFull))
		tight = c.nearlyFull(ctx)
	}
	problem := ""
	if len(tight) > 0 {
		u := tight[0]
		then := "when it is full, trials wait"
		if len(u.OverShare) > 0 {
			then = fmt.Sprintf("trials wait on %s, which stored its share of the last tenth", u.OverShare[0])
		}
		problem = fmt.Sprintf(
			"the store for %s is nearly full (%d of %d MB); %s. %s, or raise retention.%s in node.yaml",
			u.Name, u.Bytes/1e6, u.Limit/1e6, then, c.suggestRemoval(ctx), u.Name)
	}
	c.m.setSpaceProblem(problem)
}

// suggestRemoval says which sweeps a person can remove for more room.
func (c *collector) suggestRemoval(ctx context.Context) string {
	largest, trials := grid.SweepID(""), int64(-1)
	for _, r := range c.m.Sweeps() {
		if s := r.Sweep.State; s != grid.SweepFinished && s != grid.SweepCancelled {
			continue
		}
		counts, err := c.m.cfg.History.Counts(ctx, r.Sweep.ID)
		if n := counts.Done(); err == nil && (n > trials || n == trials && r.Sweep.ID < largest) {
			largest, trials = r.Sweep.ID, n
		}
	}
	if largest == "" {
		return "No sweep has ended yet: cancel one with `mlfnode cancel SWEEP` " +
			"and remove it with `mlfnode remove SWEEP`"
	}
	return fmt.Sprintf("Remove sweeps with `mlfnode remove SWEEP` (the largest that has ended is %s, with %d trials) "+
		"or `mlfnode remove --older 30d`", largest, trials)
}

// nearlyFull returns the parts of the store that are nearly full.
func (c *collector) nearlyFull(ctx context.Context) []jetstream.Usage {
	usage, err := c.m.cfg.Store.Usage(ctx)
	if err != nil {
		return nil // the store reports its problems elsewhere
	}
	return slices.DeleteFunc(usage, func(u jetstream.Usage) bool { return !u.NearlyFull() })
}

// outdated returns the sweeps beyond the retention: ended ones by number and age, paused ones by
// age, and those whose removal was interrupted.
func (c *collector) outdated(now time.Time) []jetstream.Record {
	retention := c.m.settings().retention
	var ended, old []jetstream.Record
	for _, r := range c.m.Sweeps() {
		switch s := r.Sweep; {
		case s.Removing:
			old = append(old, r)
		case s.State == grid.SweepFinished || s.State == grid.SweepCancelled:
			ended = append(ended, r)
		case s.State == grid.SweepPaused && retention.Age > 0:
			since := s.Paused
			if since.IsZero() { // older records do not say when they were paused
				since = s.Submitted
			}
			if now.Sub(since) > retention.Age {
				old = append(old, r)
			}
		}
	}
	slices.SortFunc(ended, func(a, b jetstream.Record) int { return b.Sweep.Ended.Compare(a.Sweep.Ended) })
	keep := len(ended)
	if n := retention.Sweeps; n > 0 {
		keep = min(keep, n)
	}
	if age := retention.Age; age > 0 {
		for keep > 0 && now.Sub(ended[keep-1].Sweep.Ended) > age {
			keep--
		}
	}
	return append(old, ended[keep:]...)
}

// Remove removes a sweep that does not run, with everything that belongs to it, from the store.
// When it returns, all of it is gone. An interrupted removal is completed later.
func (c *collector) Remove(ctx context.Context, id grid.SweepID) error {
	r, ok := c.m.Sweep(id)
	if !ok {
		return notFound(id)
	}
	switch {
	case r.Sweep.Active():
		return conflict(fmt.Sprintf("%s is running; only sweeps that have ended or are paused can be removed", id),
			fmt.Sprintf("end it first with: mlfnode cancel %s", id))
	case r.Sweep.State == grid.SweepPaused:
		if out, err := c.m.Outstanding(ctx, id); err != nil {
			return err
		} else if out > 0 && c.m.cfg.LeaseTrials {
			return conflict(fmt.Sprintf("trials of %s are still running although it is paused", id),
				fmt.Sprintf("wait for them, or stop them with: mlfnode cancel %s", id))
		}
	case r.Sweep.State == grid.SweepCancelled && c.m.cfg.LeaseTrials && c.m.currentSpaceProblem() == "":
		// With a full store, nodes may be unable to report the ends that this waits for; they drop
		// them once the sweep is gone.
		if err := c.m.awaitDrained(ctx, id); err != nil {
			return err
		}
	}
	err := c.removeEnded(ctx, id)
	if err != nil {
		c.runNow.Set()
	}
	return err
}

// removeEnded marks the record, so that nobody runs the sweep again in the meantime and an
// interrupted removal is completed, and removes everything.
func (c *collector) removeEnded(ctx context.Context, id grid.SweepID) error {
	r, ok := c.m.Sweep(id)
	if !ok {
		return nil // it has been removed already
	}
	if !r.Sweep.Removing {
		var err error
		r, err = c.m.editSweep(ctx, id, func(s *grid.Sweep) error {
			if s.Active() {
				return conflict(fmt.Sprintf("%s runs again", id), "")
			}
			s.Removing = true
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.remove(ctx, r.Sweep)
}

// remove removes everything of a sweep from the store. The record goes last, so that the next round
// completes a removal that a crash interrupted.
func (c *collector) remove(ctx context.Context, s *grid.Sweep) error {
	store := c.m.cfg.Store
	if err := store.Artifacts.DeleteAll(ctx, string(s.ID)+"/"); err != nil {
		return fmt.Errorf("remove artifacts of %s: %w", s.ID, err)
	}
	if store := c.m.cfg.Snapshots; store != nil {
		if err := store.DiscardSweep(s.ID); err != nil {
			return err
		}
	}
	if err := store.Logs.PurgeSweep(ctx, s.ID); err != nil {
		return fmt.Errorf("remove output of %s: %w", s.ID, err)
	}
	if err := store.Events.PurgeSweep(ctx, s.ID); err != nil {
		return fmt.Errorf("remove events of %s: %w", s.ID, err)
	}
	if err := c.m.cfg.History.Remove(ctx, s.ID); err != nil {
		return fmt.Errorf("remove history of %s: %w", s.ID, err)
	}
	if err := c.removeBundle(ctx, s); err != nil {
		return err
	}
	if err := store.Records.Delete(ctx, s.ID); err != nil {
		return fmt.Errorf("remove record of %s: %w", s.ID, err)
	}
	c.m.storeRecord(jetstream.Change{ID: s.ID, Deleted: true})
	c.m.log.Info("sweep removed", "sweep", s.ID)
	return nil
}

// removeBundle removes the sweep's bundles that no other sweep uses.
func (c *collector) removeBundle(ctx context.Context, s *grid.Sweep) error {
	bundles := s.Bundles()
	if len(bundles) == 0 {
		return nil
	}
	unlock, err := c.m.lockSubmissions(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, r := range c.m.Sweeps() {
		if r.Sweep.ID != s.ID {
			used := r.Sweep.Bundles()
			bundles = slices.DeleteFunc(bundles, func(b string) bool { return slices.Contains(used, b) })
		}
	}
	for _, b := range bundles {
		if err := c.m.cfg.Store.Bundles.Delete(ctx, b); err != nil {
			return fmt.Errorf("remove bundle of %s: %w", s.ID, err)
		}
	}
	return nil
}

// The age at which a bundle without a sweep is removed: its submission follows within moments, and
// sends it again when it is gone.
const (
	orphanAge         = time.Hour
	orphanAgeWhenFull = time.Minute // when space is short
)

// removeOrphans removes data that belongs to no sweep: events, output and artifacts of sweeps
// without a record, and bundles that were stored before a time. Of many subjects it checks some,
// and the next ones when it is called again, unless whole is set.
func (c *collector) removeOrphans(ctx context.Context, whole bool, before time.Time) {
	removed, err := c.m.cfg.Store.PurgeOrphans(ctx, whole, func(id grid.SweepID) bool {
		_, ok := c.m.Sweep(id)
		return ok
	})
	if len(removed) > 0 {
		c.m.log.Warn("data that nodes stored for unknown sweeps is removed", "count", len(removed), "first", removed[0])
	}
	if err := errors.Join(err, c.removeBundles(ctx, before)); err != nil && ctx.Err() == nil {
		c.m.log.Warn("data that belongs to no sweep could not be removed; trying again later", "err", err)
	}
}

// removeBundles removes bundles that no sweep names and that were stored before a time.
func (c *collector) removeBundles(ctx context.Context, before time.Time) error {
	all, err := c.m.cfg.Store.Bundles.List(ctx, "")
	if err != nil || len(all) == 0 {
		return err
	}
	unlock, err := c.m.lockSubmissions(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	named, err := c.m.cfg.Store.Records.Bundles(ctx)
	if err != nil {
		return fmt.Errorf("find bundles that no sweep uses: %w", err)
	}
	for _, b := range all {
		if named[b.Name] || !b.Stored.Before(before) {
			continue
		}
		if err := c.m.cfg.Store.Bundles.Delete(ctx, b.Name); err != nil {
			return fmt.Errorf("remove bundle %s: %w", b.Name, err)
		}
		c.m.log.Info("unused bundle removed", "bundle", b.Name, "bytes", b.Size)
	}
	return nil
}

// FreeBundles removes bundles that no sweep uses when there is little room for another one.
func (c *collector) FreeBundles(ctx context.Context) error {
	usage, err := c.m.cfg.Store.Usage(ctx)
	if err != nil {
		return err
	}
	for _, u := range usage {
		if u.Name == jetstream.BundlePart && u.Bytes > u.Limit/2 {
			return c.removeBundles(ctx, time.Now().Add(-orphanAgeWhenFull))
		}
	}
	return nil
}
