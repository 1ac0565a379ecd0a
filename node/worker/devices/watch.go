// Package devices watches the GPUs of a node: which of them trials may get, what each attempt uses
// of them, and what is wrong with one when an attempt fails.
//
// A Watch samples the driver's figures and tells the allocator the state of each device:
//
//	                 its trial has ended              its memory is free again
//	ready ───────────────────────────────► dirty ───────────────────────────► ready
//	ready ── a program that is not a trial computes there ──► foreign ── gone for 10 s ──► ready
//	any ──── an error of the device, see faults.go ──────► sick ── its node is undrained, or reset ──► ready
//	any ──── the driver does not show it any more ───────► gone ── shown again for a minute ──► ready
//
// An error of the driver says nothing about a device: states stay as they were at the last sample,
// and people are told that the health is unknown. When that sample is half a minute old, no trial
// gets a device until there is another one.
package devices

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

// Source is where a Watch gets its samples from, such as an inventory.Watcher.
type Source interface {
	Sample(ctx context.Context) (inventory.Sample, error)
}

// Foreign says what to do with a device on which a program computes that is not a trial.
type Foreign string

// The values of the setting gpus.foreign.
const (
	Avoid  Foreign = "avoid"  // nothing new starts there
	Ignore Foreign = "ignore" // trials share the device with it
)

// Config holds the collaborators and settings of a Watch. Its funcs must not block.
type Config struct {
	Source      Source
	Allocator   *allocator.Allocator
	ListDevices func(*inventory.Machine) []allocator.Device // which devices of the machine trials may have
	SetDevices  func([]allocator.Device)                    // passes them to the allocator
	OnFreed     func()                                      // called when a device has become ready; may be nil
	// called when a state has changed for more than a moment; may be nil
	OnChanged func()
	Foreign   Foreign
	CacheDir  string // value of MLF_CACHE in programs of this node, which distinguishes them from others
	File      string // where the records of devices outlive the agent; "" for nowhere
	Boot      string // identifies this start of the machine: earlier records no longer count
	Logger    *slog.Logger
}

const (
	// dirtyInterval, busyInterval and idleInterval are how often the devices are sampled: while one
	// is to become free, while attempts use some, and otherwise.
	dirtyInterval = 100 * time.Millisecond
	busyInterval  = time.Second
	idleInterval  = 10 * time.Second
	// maxDirtyTime is how long memory may take to become free before that counts as a problem, and
	// is sampled less often.
	maxDirtyTime = 10 * time.Second
	// sampleTimeout bounds one sample. A driver that hangs blocks nobody.
	sampleTimeout = 20 * time.Second
	// stableTime is how long a device must be shown again, or be without a recovery action, before
	// it counts as healthy.
	stableTime = time.Minute
	// foreignGoneTime is how long a program that is not a trial must have left a device before
	// trials get it.
	foreignGoneTime = 10 * time.Second
	// goneAfter is how long a device is missing before it counts as gone, and minMisses in how many
	// samples in a row it is missing before that is evidence for an attempt that fails.
	goneAfter = 3 * time.Second
	minMisses = 2
	// staleAfter is how old the newest sample may be before trials get no devices.
	staleAfter = idleInterval + sampleTimeout
)

// Watch watches the devices of one node. Make one with New.
type Watch struct {
	cfg        Config
	log        *slog.Logger
	wakeup     chan struct{}
	hasDevices atomic.Bool // there are devices

	mu            sync.Mutex
	foreign       Foreign
	devices       map[string]*device // that trials may have, by UUID; includes those that are gone
	attempts      map[attemptKey]*attempt
	health        string            // why faults can't be watched; "" when they are
	sampledAt     time.Time         // the time of the last sample, successful or not
	lastSample    time.Time         // the time of the last successful sample; zero before the first
	sampleDone    chan struct{}     // closed and replaced after each sample
	faultLoggedAt map[int]time.Time // when an Xid was last logged
	records       map[string]*record
	storedRecords []byte // what Config.File has; owned by Run
}

// New makes a Watch that knows no devices yet.
func New(cfg Config) *Watch {
	w := &Watch{
		cfg: cfg, log: cfg.Logger, foreign: cfg.Foreign, wakeup: make(chan struct{}, 1),
		sampleDone: make(chan struct{}),
		devices:    map[string]*device{}, attempts: map[attemptKey]*attempt{}, faultLoggedAt: map[int]time.Time{},
		records: map[string]*record{},
	}
	if err := w.readRecords(); err != nil {
		w.log.Warn("GPUs that were out of service may come back", "err", err)
	}
	return w
}

// Run samples the devices until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.sample(ctx)
		pause := time.NewTimer(w.nextInterval())
		select {
		case <-ctx.Done():
		case <-w.wakeup:
		case <-pause.C:
		}
		pause.Stop()
	}
	return nil
}

// nextInterval returns the time until the next sample.
func (w *Watch) nextInterval() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	shortest := idleInterval
	for _, d := range w.devices {
		switch {
		case d.gone:
		case !d.dirtySince.IsZero() && time.Since(d.dirtySince) < maxDirtyTime:
			return dirtyInterval
		case !d.dirtySince.IsZero(), len(d.suspects) > 0, d.misses > 0:
			shortest = busyInterval
		}
	}
	for _, a := range w.attempts {
		if len(a.Devices) > 0 {
			shortest = busyInterval
		}
	}
	return shortest
}

// wake makes Run take a sample now.
func (w *Watch) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

// HasDevices reports whether this node has GPUs. Without any, attempts need not be recorded.
func (w *Watch) HasDevices() bool { return w.hasDevices.Load() }

// SetForeign changes what happens to devices that other programs use.
func (w *Watch) SetForeign(f Foreign) {
	w.mu.Lock()
	w.foreign = f
	w.mu.Unlock()
	w.wake()
}

// sample takes a sample and updates the devices.
func (w *Watch) sample(ctx context.Context) {
	asked := time.Now()
	limited, stop := context.WithTimeout(ctx, sampleTimeout)
	s, err := w.cfg.Source.Sample(limited)
	stop()
	if ctx.Err() != nil {
		return
	}
	owners, by := w.owners(&s)
	w.mu.Lock()
	switch {
	case err != nil && len(w.devices) > 0:
		w.setHealthLocked(err)
	case err == nil:
		w.setHealthLocked(s.Health)
		w.recordFaultsLocked(s.Faults)
		if s.Time.After(w.sampledAt) { // a slow source returns the same figures several times
			for uuid, d := range w.devices {
				_, shown := s.Find(uuid)
				d.recordShown(shown, s.Time)
			}
			w.recordUsesLocked(&s, owners, by)
			w.lastSample = s.Time
		}
		asked = s.Time
	}
	w.sampledAt = asked
	freed, changed := w.updateStatesLocked(time.Now())
	close(w.sampleDone)
	w.sampleDone = make(chan struct{})
	records := w.recordsLocked()
	w.mu.Unlock()
	w.storeRecords(records)
	w.notify(freed, changed)
}

// notify calls the funcs of Config, without the lock.
func (w *Watch) notify(freed, changed bool) {
	if freed && w.cfg.OnFreed != nil {
		w.cfg.OnFreed()
	}
	if changed && w.cfg.OnChanged != nil {
		w.cfg.OnChanged()
	}
}

// setHealthLocked records whether faults can be watched, and logs a change.
func (w *Watch) setHealthLocked(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && w.health == "" {
		w.log.Warn("the health of the GPUs is unknown", "err", err)
	}
	w.health = text
}

// SetMachine updates what the machine has, from its latest reading. A device that is no longer
// shown stays, as gone.
func (w *Watch) SetMachine(m inventory.Machine) {
	w.mu.Lock()
	met := false
	listed := map[string]bool{}
	for _, found := range w.cfg.ListDevices(&m) {
		listed[found.UUID] = true
		d := w.devices[found.UUID]
		if d == nil {
			d = &device{record: w.recordOf(found.UUID), dirtySince: time.Now(), unsampled: true} // somebody may use it
			d.State, d.Why, d.Since = allocator.Dirty, "waiting for a first look at its memory", d.dirtySince
			w.devices[found.UUID], met = d, true
			defer w.wake()
		}
		d.driverProblem = ""
		if found.State != allocator.Ready {
			d.driverProblem = found.Why
		}
		found.State, found.Why, found.Since = d.State, d.Why, d.Since
		if d.Device != found {
			d.Device, met = found, true
		}
		d.readMachine(&m)
	}
	shown := shownDevices(&m)
	for uuid, d := range w.devices {
		// A device that is shown has been excluded by the settings. An instance that is not shown
		// went when its GPU was divided in another way.
		if !listed[uuid] && m.GPUProblem == "" && (shown[uuid] || d.Parent != "") {
			delete(w.devices, uuid)
			met = true
		}
	}
	w.hasDevices.Store(len(w.devices) > 0)
	if met {
		all := make([]allocator.Device, 0, len(w.devices))
		for _, uuid := range slices.Sorted(maps.Keys(w.devices)) {
			all = append(all, w.devices[uuid].Device)
		}
		slices.SortStableFunc(all, func(a, b allocator.Device) int { return a.Index - b.Index })
		w.cfg.SetDevices(all)
	}
	freed, changed := w.updateStatesLocked(time.Now())
	w.mu.Unlock()
	w.notify(freed, changed)
}

// shownDevices returns the UUIDs of all devices of a machine.
func shownDevices(m *inventory.Machine) map[string]bool {
	all := map[string]bool{}
	for i := range m.GPUs {
		all[m.GPUs[i].UUID] = true
		for k := range m.GPUs[i].Instances {
			all[m.GPUs[i].Instances[k].UUID] = true
		}
	}
	return all
}

// updateStatesLocked sets the states. It reports whether a device has become ready, and whether a
// state has changed that lasts: after each trial its devices are dirty for a moment.
func (w *Watch) updateStatesLocked(now time.Time) (freed, changed bool) {
	at, stale := w.lastSample, now.Sub(w.lastSample) > staleAfter
	if at.IsZero() {
		at, stale = now, false // they are dirty
	}
	for _, d := range w.devices {
		state, why := d.assess(at, w.foreign)
		if stale && state != allocator.Gone && state != allocator.Sick {
			state, why = allocator.Sick, "the driver has not answered since "+at.UTC().Format("15:04:05 MST")
		}
		if state != d.State {
			d.Since = now
			freed = freed || state == allocator.Ready
		}
		d.State, d.Why = state, why
		w.cfg.Allocator.SetState(d.UUID, d.State, d.Why, d.Since)
		if state == allocator.Dirty && now.Sub(d.dirtySince) < maxDirtyTime {
			continue
		}
		if state != d.loggedState {
			w.log.Info("state of a GPU", "gpu", d.label(), "state", stateName(state), "reason", why)
			d.loggedState, changed = state, true
		}
	}
	return freed, changed
}

// stateName is the word for a state: the allocator has none for Ready.
func stateName(s allocator.State) string {
	if s == allocator.Ready {
		return "ready"
	}
	return string(s)
}

// maxTrials bounds how many trials of a device are named.
const maxTrials = 4

// Unused is the state of a device that node.yaml excludes. The allocator does not have it.
const Unused = "unused"

// Annotate returns the machine with this node's view of its devices: state, reason, and the trials
// that run there. Devices that are gone are added. It does not change m's own GPUs.
func (w *Watch) Annotate(m inventory.Machine) inventory.Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	trials := map[string][]string{}
	for _, k := range slices.SortedFunc(maps.Keys(w.attempts), attemptKey.compare) {
		for _, uuid := range w.attempts[k].Devices {
			if len(trials[uuid]) < maxTrials {
				trials[uuid] = append(trials[uuid], k.trial.String())
			}
		}
	}
	m.GPUs = slices.Clone(m.GPUs)
	shown := shownDevices(&m)
	for i := range m.GPUs {
		g := &m.GPUs[i]
		g.Instances = slices.Clone(g.Instances)
		for k := range g.Instances {
			in := &g.Instances[k]
			in.Trials = trials[in.UUID]
			in.State, in.Why, _ = w.describeLocked(in.UUID)
		}
		g.Trials = trials[g.UUID]
		if !g.MIG {
			g.State, g.Why, g.Since = w.describeLocked(g.UUID)
		}
	}
	for _, d := range w.devices {
		if d.Parent == "" && !shown[d.UUID] && m.GPUProblem == "" {
			g := d.gpu
			g.Instances, g.Trials = nil, trials[d.UUID]
			g.State, g.Why, g.Since = w.describeLocked(d.UUID)
			m.GPUs = append(m.GPUs, g)
		}
	}
	slices.SortStableFunc(m.GPUs, func(a, b inventory.GPU) int { return a.Index - b.Index })
	m.Groups = inventory.GroupsOf(m.GPUs)
	return m
}

// describeLocked returns the state of a device for people.
func (w *Watch) describeLocked(uuid string) (state, why string, since time.Time) {
	d := w.devices[uuid]
	switch {
	case d == nil:
		return Unused, "gpus.use in node.yaml leaves it out", time.Time{}
	case d.Why == "" && w.health != "":
		return stateName(d.State), "health unknown: " + w.health, d.Since
	}
	return stateName(d.State), d.Why, d.Since
}

// MarkDirty says that an allocation is about to be released: from then on its devices are dirty,
// until they have been sampled.
func (w *Watch) MarkDirty(al *allocator.Allocation) {
	if al == nil || len(al.Shares) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range al.Shares {
		if d := w.devices[s.UUID]; d != nil {
			d.dirtySince = time.Now()
		}
	}
	w.wake()
}

// AwaitFree waits until no ended attempt holds memory of an allocation's devices, for at most ten
// seconds or until ctx ends. It is for the time between two attempts of one lease, when the first
// has failed. It reports whether the devices are free.
func (w *Watch) AwaitFree(ctx context.Context, al *allocator.Allocation) bool {
	w.MarkDirty(al)
	return w.waitUntil(ctx, maxDirtyTime, func() bool {
		for _, s := range al.Shares {
			if d := w.devices[s.UUID]; d != nil && !d.dirtySince.IsZero() && d.State != allocator.Gone {
				return false
			}
		}
		return true
	})
}

// InService reports whether none of an allocation's devices is sick, gone or used by others:
// running programs may continue, but nothing new is to start. That a device is dirty may be due to
// a neighbour.
func (w *Watch) InService(al *allocator.Allocation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range al.Shares {
		if d := w.devices[s.UUID]; d != nil && d.State != allocator.Ready && d.State != allocator.Dirty {
			return false
		}
	}
	return true
}

// waitUntil triggers a sample, and waits until done, which is called with the lock held, returns
// true; at most until the limit is over or ctx ends. It returns what done does.
func (w *Watch) waitUntil(ctx context.Context, limit time.Duration, done func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for w.wake(); ; {
		w.mu.Lock()
		ready, looked := done(), w.sampleDone
		w.mu.Unlock()
		if ready {
			return true
		}
		select {
		case <-looked:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// ReturnToService takes sick devices back into service, except those for which the driver still
// asks for a recovery.
func (w *Watch) ReturnToService() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		*r = record{}
	}
	w.wake()
}

// RecordFailure records a failure that is blamed on a device. Three of them within a day, with
// different trials, take the device out of service.
func (w *Watch) RecordFailure(uuid string, trial grid.TrialID, class grid.Class) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.devices[uuid]
	if d == nil {
		return
	}
	now := time.Now()
	d.Strikes = slices.DeleteFunc(
		d.Strikes, func(s blamedFailure) bool { return now.Sub(s.At) > faultRetention || s.Trial == trial },
	)
	if d.Strikes = append(d.Strikes, blamedFailure{now, trial}); len(d.Strikes) >= failuresUntilSick && d.Sick == "" {
		d.Sick = fmt.Sprintf(
			"%d trials failed on it with class %s within a day, the last one %s", len(d.Strikes), class, trial,
		)
		w.wake()
	}
}
