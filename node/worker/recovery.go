package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor/docker"
	"mlfnode/node/worker/allocator"
)

// recovery takes over from earlier agents: it reports attempts that have ended, and continues those
// that run.
type recovery struct {
	cfg         *Config
	log         *slog.Logger
	boot        string
	spools      *spoolPool
	outbox      *outbox
	sweeps      *sweepSet
	programs    *programRunner
	finisher    *finisher
	leases      *leaseTable
	bundles     *bundles
	allocator   *allocator.Allocator
	fairShare   *fairShare
	devices     *DeviceTracker
	checkpoints *checkpoints
	runners     *runnerPool
	wake        signal

	adoptions []*adoption // found by run, for runAdopted
}

// run is Worker.Recover.
func (rc *recovery) run(ctx context.Context) error {
	dirs, err := os.ReadDir(rc.spools.dir)
	if err != nil {
		return fmt.Errorf("list spools: %w", err)
	}
	storeUntil := time.Now().Add(recoveryTimeout)
	ctx, stop := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { rc.outbox.run(ctx) })
	for _, d := range dirs {
		n, _ := strconv.Atoi(d.Name())
		rc.spools.next = max(rc.spools.next, n)
		if err := rc.recoverSpool(ctx, filepath.Join(rc.spools.dir, d.Name()), storeUntil); err != nil {
			rc.log.Warn("spool of a dead agent is given up", "dir", d.Name(), "err", err)
		}
	}
	if rc.cfg.Adopt != nil {
		rc.cfg.Adopt.Disown()
	}
	err = rc.outbox.drain(ctx)
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
		return errors.Join(err, removeTree(dir))
	}
	record, err := rc.loadRecord(ctx, m.Sweep)
	if errors.Is(err, jetstream.ErrNotFound) {
		return removeTree(dir)
	}
	if err != nil {
		return err
	}
	s, err := openSpool(dir)
	if err != nil {
		return err
	}
	a := m.attempt(record.Sweep, s)
	a.checkpoint = rc.checkpoints.adoptFor(a)
	result, goesOn := rc.adoptAttempt(a, m, record)
	if goesOn {
		return nil
	}
	saving := record.Sweep.State == grid.SweepCancelled && record.Sweep.Save
	switch {
	case result != nil:
	case m.predatesBoot(rc.boot):
		m.Result, result = nil, a.failedResult(grid.ClassLost, "the machine went down before its report was stored")
	default:
		m.Result, result = nil, a.failedResult(grid.ClassLost, "the node agent died while it ran")
	}
	if !rc.finisher.finish(
		ctx, a, result,
		finishOptions{manifest: func() *manifest { return m }, snapshotTimeout: time.Until(storeUntil), saving: saving},
	) {
		return context.Cause(ctx)
	}
	rc.log.Info("attempt of a dead agent reported", "trial", a.id, "attempt", m.Attempt, "class", result.Class)
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
		rc.log.Debug("record can't be read yet", "sweep", id, "err", err)
		wait := time.NewTimer(retryInterval)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// readManifest returns nil for a spool that names no attempt, including one that an agent was
// creating or removing when it was killed.
func readManifest(path string) (*manifest, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || len(b) == 0 {
		return nil, err
	}
	b, _, _ = bytes.Cut(b, []byte("\n"))
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return &m, nil
}

func (m *manifest) attempt(s *grid.Sweep, spool *spool) *attempt {
	// its program has been started, or never will be: the parameters are no longer needed
	params, _ := s.Space.At(m.Index)
	a := &attempt{spool: spool, attemptSpec: attemptSpec{
		adopted: true, id: grid.TrialID{Sweep: m.Sweep, Index: m.Index}, number: m.Attempt, run: m.Run,
		task: &s.Task, params: params, started: time.UnixMicro(m.Started), allocation: m.Allocation,
	}}
	a.output.sources = []*outputSource{{file: spool.stdout, stream: streamOut}, {file: spool.stderr, stream: streamErr}}
	if m.Image != "" {
		a.image = &docker.Image{Pin: m.Image}
	}
	a.limitSources(m.Cut)
	return a
}
