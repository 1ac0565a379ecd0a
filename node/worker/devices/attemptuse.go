package devices

import (
	"context"
	"slices"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// attemptKey identifies an attempt. The zero key stands for programs that belong to none.
type attemptKey struct {
	trial  grid.TrialID
	number int
}

// Attempt is an attempt that runs. One without devices is passed too, because it may use some
// nevertheless.
type Attempt struct {
	Trial   grid.TrialID
	Number  int
	Devices []string // UUIDs, in the order of the allocation
	Whole   bool     // they are this attempt's alone
}

func (a *Attempt) key() attemptKey { return attemptKey{a.Trial, a.Number} }

// attempt is an Attempt with what was observed of it.
type attempt struct {
	Attempt
	pid          int
	container    string
	ended        bool // its programs are no longer observed
	observed     map[string]*observation
	xid          int    // the first error that the driver reported for one of its devices, and that device
	faultyDevice string //
}

// observation is what was observed of an attempt on one of its devices.
type observation struct {
	peak       int64 // bytes
	busySum    int   // percent, summed over the samples
	samples    int
	pids       []int // in the last sample
	full       bool  // in the last sample
	neighbours bool  // in the last sample
}

// Evidence is what the devices of an attempt say about its end, for the decision on its failure
// class. All of it is about the attempt's own devices.
type Evidence struct {
	Device     string // UUID of the device that Xid or Gone is about, else of the first; "" without devices
	Xid        int    // the first error that the driver reported while the attempt ran, or at its end; 0 for none
	Gone       bool   // the driver no longer reports a device
	Full       bool   // at least 95 % of the memory of a device was in use when the attempt was last observed
	Neighbours bool   // other attempts or other programs used memory of a device then
	Several    bool   // the attempt has more than one device
}

// Report is what was observed of an attempt.
type Report struct {
	Use      []grid.DeviceUse
	Evidence Evidence
}

// Begin records that an attempt is about to start its program.
func (w *Watch) Begin(a Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &attempt{Attempt: a, observed: map[string]*observation{}}
	for _, uuid := range a.Devices {
		n.observed[uuid] = &observation{}
	}
	w.attempts[a.key()] = n
	if len(a.Devices) > 0 {
		w.wakeup.Set() // from now on the devices are sampled more often
	}
}

// Started records which program the attempt has started, and the id of its container; "" for a
// process.
func (w *Watch) Started(trial grid.TrialID, number, pid int, container string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.attempts[attemptKey{trial, number}]; a != nil {
		a.pid, a.container = pid, container
	}
}

// evidenceTimeout bounds how long the end of a failed attempt waits for the driver's reports, which
// come within milliseconds.
const evidenceTimeout = 2 * time.Second

// End records that the attempt's programs have ended, and returns what was observed of it. For a
// failed attempt with devices the driver is asked once more, for errors that it has reported
// meanwhile; that takes at most two seconds. An attempt that was not begun yields nothing.
func (w *Watch) End(ctx context.Context, trial grid.TrialID, number int, failed bool) Report {
	w.mu.Lock()
	a := w.attempts[attemptKey{trial, number}]
	if a == nil {
		w.mu.Unlock()
		return Report{}
	}
	a.ended = true
	for uuid, s := range a.observed {
		if d := w.devices[uuid]; d != nil {
			if d.leftovers == nil {
				d.leftovers = map[int]string{}
			}
			for _, pid := range s.pids {
				d.leftovers[pid] = trial.String()
			}
		}
	}
	w.mu.Unlock()
	if failed && len(a.Devices) > 0 {
		ended := time.Now()
		w.waitUntil(ctx, evidenceTimeout, func() bool {
			return w.sampledAt.After(ended) && !slices.ContainsFunc(a.Devices, func(uuid string) bool {
				d := w.devices[uuid]
				return d != nil && d.misses > 0 && d.misses < minMisses // the next sample decides
			})
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.attempts, a.key())
	r := Report{Evidence: Evidence{Xid: a.xid, Device: a.faultyDevice, Several: len(a.Devices) > 1}}
	for i, uuid := range a.Devices {
		s := a.observed[uuid]
		r.Use = append(r.Use, grid.DeviceUse{UUID: uuid, Peak: s.peak, Busy: s.busySum / max(s.samples, 1)})
		r.Evidence.Full = r.Evidence.Full || s.full
		r.Evidence.Neighbours = r.Evidence.Neighbours || s.neighbours
		if d := w.devices[uuid]; d != nil && d.misses >= minMisses {
			r.Evidence.Gone, r.Evidence.Device = true, uuid
		} else if i == 0 && r.Evidence.Device == "" {
			r.Evidence.Device = uuid
		}
	}
	return r
}

// recordUses records what the devices hold, and whose it is.
func (f *findings) recordUses(s *inventory.Sample, owners map[int]owner, by *attemptIndex) {
	for pid, o := range owners {
		if a := f.attempts[o.key]; o.running && (a == nil || a.ended) {
			o.running = false // it has ended since
			owners[pid] = o
		}
	}
	for i := range s.Uses {
		u := &s.Uses[i]
		d := f.devices[u.UUID]
		if d == nil {
			continue
		}
		settled := true // the main programs of all attempts on the device were known
		for k, a := range f.attempts {
			settled = settled && (a.observed[u.UUID] == nil || by.started[k])
		}
		d.recordUse(u, s.Time, owners, settled)
		held, pids := map[attemptKey]int64{}, map[attemptKey][]int{}
		for _, p := range u.Processes {
			if o := owners[p.PID]; o.running {
				held[o.key] += max(p.Memory, 0)
				pids[o.key] = append(pids[o.key], p.PID)
			}
		}
		for k, a := range f.attempts {
			if see := a.observed[u.UUID]; see != nil && !a.ended {
				see.add(u, d, k, held[k], pids[k], a.Whole)
			}
		}
	}
}

// add adds one sample of the device.
func (s *observation) add(u *inventory.Use, d *device, k attemptKey, held int64, pids []int, whole bool) {
	s.neighbours = len(d.users) > 1 || len(d.users) == 1 && !d.users[k]
	if whole && !s.neighbours && len(u.Processes) > 0 && d.driverMemoryKnown {
		held = max(held, u.Memory-d.driverMemory) // the memory of each program, or its owner, may not be known
	}
	s.peak = max(s.peak, held)
	s.pids, s.full = pids, d.full
	if u.Busy >= 0 {
		s.busySum += u.Busy
		s.samples++
	}
}
