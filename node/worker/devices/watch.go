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
	"cmp"
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
	"mlfnode/node/poll"
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
	wakeup     poll.Signal // makes Run take a sample now
	hasDevices atomic.Bool // there are devices

	mu         sync.Mutex
	sampledAt  time.Time     // the time of the last sample, successful or not
	sampleDone chan struct{} // closed and replaced after each sample
	records    recordStore
	findings
}

// findings are what a Watch has found out, and what it is told of attempts. Watch.mu guards them.
type findings struct {
	log           *slog.Logger
	foreign       Foreign
	devices       map[string]*device // that trials may have, by UUID; includes those that are gone
	attempts      map[attemptKey]*attempt
	health        string            // why faults can't be watched; "" when they are
	lastSample    time.Time         // the time of the last successful sample; zero before the first
	faultLoggedAt map[int]time.Time // when an Xid was last logged
}

// New makes a Watch that knows no devices yet.
func New(cfg Config) *Watch {
	w := &Watch{
		cfg: cfg, wakeup: poll.NewSignal(), sampleDone: make(chan struct{}),
		records: recordStore{file: cfg.File, boot: cfg.Boot, log: cfg.Logger, devices: map[string]*record{}},
		findings: findings{
			log: cfg.Logger, foreign: cfg.Foreign, devices: map[string]*device{}, attempts: map[attemptKey]*attempt{},
			faultLoggedAt: map[int]time.Time{},
		},
	}
	if err := w.records.read(); err != nil {
		w.log.Warn("GPUs that were out of service may come back", "err", err)
	}
	return w
}

// Run samples the devices until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.sample(ctx)
		w.mu.Lock()
		pause := w.nextInterval()
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.wakeup:
		case <-time.After(pause):
		}
	}
	return nil
}

// nextInterval returns the time until the next sample.
func (f *findings) nextInterval() time.Duration {
	shortest := idleInterval
	for _, d := range f.devices {
		switch {
		case d.gone:
		case !d.dirtySince.IsZero() && time.Since(d.dirtySince) < maxDirtyTime:
			return dirtyInterval
		case !d.dirtySince.IsZero(), len(d.suspects) > 0, d.misses > 0:
			shortest = busyInterval
		}
	}
	for _, a := range f.attempts {
		if len(a.Devices) > 0 {
			shortest = busyInterval
		}
	}
	return shortest
}

// HasDevices reports whether this node has GPUs. Without any, attempts need not be recorded.
func (w *Watch) HasDevices() bool { return w.hasDevices.Load() }

// SetForeign changes what happens to devices that other programs use.
func (w *Watch) SetForeign(f Foreign) {
	w.mu.Lock()
	w.foreign = f
	w.mu.Unlock()
	w.wakeup.Set()
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
	w.mu.Lock()
	by := w.index()
	w.mu.Unlock()
	owners := map[int]owner{}
	for i := range s.Uses {
		for _, p := range s.Uses[i].Processes {
			if _, ok := owners[p.PID]; !ok {
				owners[p.PID] = by.ownerOf(p.PID, w.cfg.CacheDir)
			}
		}
	}
	w.mu.Lock()
	switch {
	case err != nil && len(w.devices) > 0:
		w.setHealth(err)
	case err == nil:
		w.setHealth(s.Health)
		w.recordFaults(s.Faults)
		if s.Time.After(w.sampledAt) { // a slow source returns the same figures several times
			for uuid, d := range w.devices {
				_, shown := s.Find(uuid)
				d.recordShown(shown, s.Time)
			}
			w.recordUses(&s, owners, by)
			w.lastSample = s.Time
		}
		asked = s.Time
	}
	w.sampledAt = asked
	freed, changed := w.updateStates(w.cfg.Allocator, time.Now())
	close(w.sampleDone)
	w.sampleDone = make(chan struct{})
	records := w.records.encode()
	w.mu.Unlock()
	w.records.store(records)
	w.cfg.notify(freed, changed)
}

// notify calls the funcs of Config. The Watch must not be locked.
func (c *Config) notify(freed, changed bool) {
	if freed && c.OnFreed != nil {
		c.OnFreed()
	}
	if changed && c.OnChanged != nil {
		c.OnChanged()
	}
}

// setHealth records whether faults can be watched, and logs a change.
func (f *findings) setHealth(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && f.health == "" {
		f.log.Warn("the health of the GPUs is unknown", "err", err)
	}
	f.health = text
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
			d = &device{record: w.records.of(found.UUID)}
			d.dirtySince, d.unsampled = time.Now(), true // somebody may use it
			d.Availability = allocator.Availability{
				State: allocator.Dirty, Why: "waiting for a first look at its memory", Since: d.dirtySince,
			}
			w.devices[found.UUID], met = d, true
			defer w.wakeup.Set()
		}
		d.driverProblem = ""
		if found.State != allocator.Ready {
			d.driverProblem = found.Why
		}
		found.Availability = d.Availability
		if d.Device != found {
			d.Device, met = found, true
		}
		for _, g := range m.GPUs {
			if g.UUID != d.UUID && g.UUID != d.Parent {
				continue
			}
			d.gpu = g
			for k := range g.Instances {
				if g.Instances[k].UUID == d.UUID {
					d.instance = &g.Instances[k]
				}
			}
		}
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
	freed, changed := w.updateStates(w.cfg.Allocator, time.Now())
	w.mu.Unlock()
	w.cfg.notify(freed, changed)
}

// shownDevices returns the UUIDs of all devices of a machine.
func shownDevices(m *inventory.Machine) map[string]bool {
	all := map[string]bool{}
	for _, g := range m.GPUs {
		all[g.UUID] = true
		for _, in := range g.Instances {
			all[in.UUID] = true
		}
	}
	return all
}

// updateStates sets the states, also in the allocator. It reports whether a device has become
// ready, and whether a state has changed that lasts: after each trial its devices are dirty for a
// moment.
func (f *findings) updateStates(to *allocator.Allocator, now time.Time) (freed, changed bool) {
	at, stale := f.lastSample, now.Sub(f.lastSample) > staleAfter
	if at.IsZero() {
		at, stale = now, false // they are dirty
	}
	for _, d := range f.devices {
		state, why := d.assess(at, f.foreign)
		if stale && state != allocator.Gone && state != allocator.Sick {
			state, why = allocator.Sick, "the driver has not answered since "+at.UTC().Format("15:04:05 MST")
		}
		if state != d.State {
			d.Since = now
			freed = freed || state == allocator.Ready
		}
		d.State, d.Why = state, why
		to.SetAvailability(d.UUID, d.Availability)
		if state == allocator.Dirty && now.Sub(d.dirtySince) < maxDirtyTime {
			continue
		}
		if state != d.loggedState {
			f.log.Info("state of a GPU", "gpu", d.label(), "state", stateName(state), "reason", why)
			d.loggedState, changed = state, true
		}
	}
	return freed, changed
}

// stateName is the word for a state: the allocator has none for Ready.
func stateName(s allocator.State) string { return cmp.Or(string(s), "ready") }

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
	byTrial := func(k, l attemptKey) int {
		return cmp.Or(
			cmp.Compare(k.trial.Sweep, l.trial.Sweep), cmp.Compare(k.trial.Index, l.trial.Index),
			cmp.Compare(k.number, l.number),
		)
	}
	for _, k := range slices.SortedFunc(maps.Keys(w.attempts), byTrial) {
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
			in.State, in.Why, _ = w.describe(in.UUID)
		}
		g.Trials = trials[g.UUID]
		if !g.MIG {
			g.State, g.Why, g.Since = w.describe(g.UUID)
		}
	}
	for _, d := range w.devices {
		if d.Parent == "" && !shown[d.UUID] && m.GPUProblem == "" {
			g := d.gpu
			g.Instances, g.Trials = nil, trials[d.UUID]
			g.State, g.Why, g.Since = w.describe(d.UUID)
			m.GPUs = append(m.GPUs, g)
		}
	}
	slices.SortStableFunc(m.GPUs, func(a, b inventory.GPU) int { return a.Index - b.Index })
	m.Groups = inventory.GroupsOf(m.GPUs)
	return m
}

// describe returns the state of a device for people.
func (f *findings) describe(uuid string) (state, why string, since time.Time) {
	d := f.devices[uuid]
	switch {
	case d == nil:
		return Unused, "gpus.use in node.yaml leaves it out", time.Time{}
	case d.Why == "" && f.health != "":
		return stateName(d.State), "health unknown: " + f.health, d.Since
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
	w.wakeup.Set()
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
	expired := time.After(limit)
	for w.wakeup.Set(); ; {
		w.mu.Lock()
		ready, looked := done(), w.sampleDone
		w.mu.Unlock()
		if ready {
			return true
		}
		select {
		case <-looked:
		case <-expired:
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
	for _, r := range w.records.devices {
		*r = record{}
	}
	w.wakeup.Set()
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
	d.Strikes = slices.DeleteFunc(d.Strikes, func(s blamedFailure) bool {
		return now.Sub(s.At) > faultRetention || s.Trial == trial
	})
	if d.Strikes = append(d.Strikes, blamedFailure{now, trial}); len(d.Strikes) >= failuresUntilSick && d.Sick == "" {
		d.Sick = fmt.Sprintf("%d trials failed on it with class %s within a day, the last one %s",
			len(d.Strikes), class, trial)
		w.wakeup.Set()
	}
}
