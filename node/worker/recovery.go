package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor/docker"
	"mlfnode/node/poll"
	"mlfnode/projects"
)

// recovery takes over from earlier agents: it reports attempts that have ended, and continues those
// that run.
type recovery struct {
	*capacity
	cfg      *Config
	boot     string
	sweeps   *sweepSet
	leases   *leaseTable
	devices  *DeviceTracker
	runners  *runnerPool
	programs *programRunner
	finisher *finisher

	adoptions []*adoption // found by run, for runAdopted
}

// run is Worker.Recover.
func (rc *recovery) run(ctx context.Context) error {
	spools := rc.finisher.spools
	dirs, err := os.ReadDir(spools.dir)
	if err != nil {
		return fmt.Errorf("list spools: %w", err)
	}
	storeUntil := time.Now().Add(recoveryTimeout)
	ctx, stop := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { rc.finisher.outbox.run(ctx) })
	for _, d := range dirs {
		n, _ := strconv.Atoi(d.Name())
		spools.next = max(spools.next, n)
		if err := rc.recoverSpool(ctx, filepath.Join(spools.dir, d.Name()), storeUntil); err != nil {
			rc.cfg.Logger.Warn("spool of a dead agent is given up", "dir", d.Name(), "err", err)
		}
	}
	if rc.cfg.Adopt != nil {
		rc.cfg.Adopt.Disown()
	}
	err = rc.finisher.outbox.drain(ctx)
	stop()
	reporting.Wait()
	if err != nil {
		return fmt.Errorf("store what a dead agent left: %w", err)
	}
	return nil
}

// recoverSpool reports one spool and removes it once the report is stored.
func (rc *recovery) recoverSpool(ctx context.Context, dir string, storeUntil time.Time) error {
	m, err := readManifest(filepath.Join(dir, "attempt.json"))
	if err != nil || m == nil {
		return errors.Join(err, projects.RemoveTree(dir))
	}
	record, err := rc.loadRecord(ctx, m.Sweep)
	if errors.Is(err, jetstream.ErrNotFound) {
		return projects.RemoveTree(dir)
	}
	if err != nil {
		return err
	}
	s, err := openSpool(dir)
	if err != nil {
		return err
	}
	// Its program has been started, or never will be: the parameters are no longer needed.
	params, _ := record.Sweep.Space.At(m.Index)
	a := &attempt{spool: s, attemptSpec: attemptSpec{
		adopted: true, id: grid.TrialID{Sweep: m.Sweep, Index: m.Index}, number: m.Attempt, run: m.Run,
		task: &record.Sweep.Task, params: params, started: time.UnixMicro(m.Started), allocation: m.Allocation,
	}}
	a.output.sources = s.outputSources()
	if m.Image != "" {
		a.image = &docker.Image{Pin: m.Image}
	}
	a.limitSources(m.Cut)
	a.checkpoint = rc.finisher.checkpoints.adoptFor(a)
	result, goesOn := rc.adoptAttempt(a, m, record)
	if goesOn {
		return nil
	}
	if result == nil {
		why := "the node agent died while it ran"
		if m.predatesBoot(rc.boot) {
			why = "the machine went down before its report was stored"
		}
		m.Result, result = nil, a.failedResult(grid.ClassLost, why)
	}
	if !rc.finisher.finish(ctx, a, result, finishOptions{
		manifest: func() *manifest { return m }, snapshotTimeout: time.Until(storeUntil),
		saving: record.Sweep.State == grid.SweepCancelled && record.Sweep.Save,
	}) {
		return context.Cause(ctx)
	}
	rc.cfg.Logger.Info("attempt of a dead agent reported", "trial", a.id, "attempt", m.Attempt, "class", result.Class)
	return nil
}

// loadRecord reads the record of a sweep. It waits for a store that is away: a spool that is
// skipped now would have to wait for another start.
func (rc *recovery) loadRecord(ctx context.Context, id grid.SweepID) (record jetstream.Record, err error) {
	for {
		record, err = rc.cfg.Master.Record(ctx, id)
		if err == nil || ctx.Err() != nil || errors.Is(err, jetstream.ErrNotFound) || !jetstream.IsUnavailable(err) {
			return record, err
		}
		rc.cfg.Logger.Debug("record can't be read yet", "sweep", id, "err", err)
		poll.Sleep(ctx, retryInterval)
	}
}
