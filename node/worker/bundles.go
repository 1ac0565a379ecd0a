package worker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/poll"
	"mlfnode/projects"
)

// setupDoneSuffix is the suffix of the file that marks the setup of this name as complete.
const setupDoneSuffix = ".ok"

// bundles prepares projects on this node: each digest is unpacked once, and set up once for each
// setup step.
type bundles struct {
	dir      string
	cacheDir string // $MLF_CACHE: setup steps and programs of all sweeps may keep files there
	cache    *projects.Cache
	fetch    func(ctx context.Context, digest string) (io.ReadCloser, error)

	isActive func(grid.SweepID) bool // reports whether trials of a sweep may start; nil: they may

	limit     int64       // bytes of bundles and setups that are kept; 0 is defaultCacheShare of the disk
	evictSoon poll.Signal // there is something new

	mu        sync.Mutex
	prepared  map[string]*preparedProject
	locks     map[string]chan struct{} // of the folders of setups
	useCounts map[string]int           // how many attempts and preparations use a folder, which then may not be removed
	sizes     map[string]int64         // of folders, as far as they are known
}

// preparedProject is a project that can be given to attempts. done is closed when entries, names,
// folders and err are final.
type preparedProject struct {
	done      chan struct{}
	entries   []folderEntry
	names     map[string]bool // of the top level of the attempt's folder
	folders   []string        // that entries lie in
	err       error
	touchedAt time.Time      // when the use of the folders was last recorded; guarded by bundles
	sweeps    []grid.SweepID // those that have used it and may be active; guarded by bundles

	failures int       // of its setup step on this node, in a row
	retryAt  time.Time // when a setup step that failed may run again; guarded by bundles
	stopped  bool      // the attempt that prepared it was stopped, which tells nothing about the project
}

// get returns the prepared project of a sweep, whose folders stay until the caller unpins them. The
// first caller prepares it, and others wait. A setup step that fails is the failure of the attempt
// that ran it, and of no other: the failure is remembered, and other callers wait until one of them
// may try again, or the sweep is no longer active. Other errors are not remembered. A preparation
// that was stopped tells nothing about the project: another caller continues.
func (b *bundles) get(
	ctx context.Context, r *grid.Sweep, image string, setup func(dir string) error,
) (*preparedProject, error) {
	key := setupKey(r.Bundle, &r.Task, image)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p, mine, ready := b.claimPreparation(key, r.ID)
		if ready {
			return p, nil
		}
		if mine {
			pr := &preparation{bundles: b, sweep: r, image: image, setup: setup}
			p.entries, p.err = pr.build(ctx)
			p.names = map[string]bool{}
			for i := range p.entries {
				name, _, _ := strings.Cut(p.entries[i].path, "/")
				p.names[name] = true
			}
			p.stopped = p.err != nil && ctx.Err() != nil
			if p.folders = pr.folders; p.err != nil {
				b.unpin(p.folders)
			}
			b.recordPreparation(key, p)
			close(p.done)
			return p, p.err
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if p.stopped || p.err == nil {
			continue
		}
		if p.failures == 0 {
			return p, p.err
		}
		if err := b.awaitRetry(ctx, r.ID, p); err != nil {
			return nil, err
		}
	}
}

// claimPreparation returns the project that is ready under this key, with its folders pinned for
// the caller, or the one that is being prepared, or makes the caller prepare it.
func (b *bundles) claimPreparation(key string, id grid.SweepID) (p *preparedProject, mine, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, now := b.prepared[key], time.Now()
	if old != nil && !slices.Contains(old.sweeps, id) {
		old.sweeps = append(old.sweeps, id)
	}
	if old.isReady() {
		if old.foldersExist() {
			for _, folder := range old.folders {
				b.useCounts[folder]++
			}
			if now.Sub(old.touchedAt) > touchInterval {
				old.touchedAt = now
				touchFolders(old.folders, now)
			}
			return old, false, true
		}
	} else if old != nil && (old.retryAt.IsZero() || now.Before(old.retryAt)) {
		return old, false, false
	}
	p = &preparedProject{done: make(chan struct{}), sweeps: []grid.SweepID{id}}
	if old != nil {
		p.failures, p.sweeps = old.failures, old.sweeps
	}
	b.prepared[key] = p
	return p, true, false
}

const (
	// setupRetryDelay is the wait before a setup step that failed runs again on this node. It
	// doubles each time, up to maxSetupRetryDelay.
	setupRetryDelay    = 2 * time.Second
	maxSetupRetryDelay = time.Minute
	// setupRetryPoll is how often waiting attempts check whether it may run again.
	setupRetryPoll = 100 * time.Millisecond
)

// recordPreparation remembers the failure of a setup step, and forgets any other failure.
func (b *bundles) recordPreparation(key string, p *preparedProject) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var failed *setupError
	switch {
	case p.err == nil:
		p.failures, p.touchedAt = 0, time.Now()
		touchFolders(p.folders, p.touchedAt)
		b.evictSoon.Set()
	case !p.stopped && errors.As(p.err, &failed) && failed.class != grid.ClassNode:
		p.retryAt = time.Now().Add(min(setupRetryDelay<<min(p.failures, 16), maxSetupRetryDelay))
		p.failures++
	default:
		p.failures = 0
		delete(b.prepared, key)
	}
}

// errInactive is for an attempt that waited for a setup until its sweep was paused or had ended.
var errInactive = errors.New("the sweep was stopped before the trial began")

// awaitRetry waits until a setup step that failed may run again.
func (b *bundles) awaitRetry(ctx context.Context, id grid.SweepID, p *preparedProject) error {
	return poll.Until(ctx, setupRetryPoll, func() (bool, error) {
		if b.isActive != nil && !b.isActive(id) {
			return false, errInactive
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return time.Now().After(p.retryAt), nil
	})
}

// allowRetry lets the failed setup of a sweep run again immediately: its user has changed or
// resumed the sweep.
func (b *bundles) allowRetry(r *grid.Sweep, image string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.prepared[setupKey(r.Bundle, &r.Task, image)]; p != nil && !p.retryAt.IsZero() {
		p.retryAt = time.Now()
	}
}
