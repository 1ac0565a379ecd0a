package devices

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

// device is a GPU or an instance, as this node knows it.
type device struct {
	allocator.Device                     // with the state that was determined last
	loggedState      allocator.State     // the last state that lasted
	driverProblem    string              // why its driver can't use it, as of the last reading; "" when it can
	gpu              inventory.GPU       // the whole GPU, as of the last reading
	instance         *inventory.Instance // nil for a whole GPU

	presence
	memoryUse
	*record
	recoveredSince time.Time // since when the driver has not asked for a recovery
}

// presence is whether samples show a device. The driver may lose one without notice.
type presence struct {
	misses       int       // samples in a row in which it was missing
	missingSince time.Time // since when it has been missing
	gone         bool      // it has been missing for so long that it counts as gone
	backSince    time.Time // since when it has been shown again after that
}

// memoryUse is who has memory of a device, and whether that keeps trials from it.
type memoryUse struct {
	unsampled bool // it has not been sampled yet
	full      bool // at least 95 % of the memory was in use in the last sample
	// attempts and, with the zero key, other programs that used its memory in the last sample
	users map[attemptKey]bool

	dirtySince        time.Time      // when a trial ended whose memory has not been seen free since; zero otherwise
	heldBy            string         // what holds the memory then
	leftovers         map[int]string // programs of attempts that have ended, with their trials
	driverMemory      int64          // memory that the driver itself needs: the least that belonged to no program
	driverMemoryKnown bool           // driverMemory is known

	suspects       map[int]bool // programs without an owner, seen once
	foreignProgram string       // the program of somebody else
	foreignSeen    time.Time    // when it was last seen
}

// blamedFailure is a failure that was blamed on a device.
type blamedFailure struct {
	At    time.Time    `json:"at"`
	Trial grid.TrialID `json:"trial"`
}

// failuresUntilSick is how many of them within a day take a device out of service.
const failuresUntilSick = 3

// label names the device for people: 1, or 1.0 for an instance.
func (d *device) label() string {
	text := strconv.Itoa(d.Index)
	for k, in := range d.gpu.Instances {
		if d.Parent != "" && in.UUID == d.UUID {
			text += "." + strconv.Itoa(k)
		}
	}
	return text
}

// assess returns the state that the device is in, by what was known of it at a moment.
func (d *device) assess(now time.Time, foreign Foreign) (allocator.State, string) {
	switch {
	case d.gone && d.driverProblem != "":
		return allocator.Gone, d.driverProblem
	case d.gone && !d.backSince.IsZero():
		return allocator.Gone, "the driver shows it again; it is used once that lasts a minute"
	case d.gone:
		return allocator.Gone,
			"the driver does not show it any more; restart the machine, and look at its power and its slot"
	case d.driverProblem != "":
		return allocator.Sick, d.driverProblem
	case d.isRecovering(now):
		return allocator.Sick, "the driver says that it " + d.gpu.Recovery.String()
	case d.Sick != "":
		return allocator.Sick, d.Sick
	case !d.dirtySince.IsZero() && d.unsampled:
		return allocator.Dirty, "it has not been checked yet"
	case !d.dirtySince.IsZero() && (d.heldBy == "" || now.Sub(d.dirtySince) < maxDirtyTime):
		return allocator.Dirty, "its last trial has ended, and its memory is not free yet"
	case !d.dirtySince.IsZero():
		return allocator.Dirty, d.heldBy + " since " + d.dirtySince.UTC().Format("15:04 MST")
	case foreign == Avoid && d.foreignProgram != "" && now.Sub(d.foreignSeen) < foreignGoneTime:
		return allocator.Foreign, d.foreignProgram + "; gpus.foreign: ignore in node.yaml would share it"
	}
	return allocator.Ready, ""
}

// isRecovering reports whether the driver asks for a recovery. When it did so after a fault and has
// stopped for a minute, the fault is over, too.
func (d *device) isRecovering(now time.Time) bool {
	switch {
	case d.gpu.Recovery > inventory.RecoveryNone:
		d.Risen, d.recoveredSince = true, time.Time{}
		return true
	case !d.Risen || d.gpu.Recovery == inventory.RecoveryUnknown:
		return false
	case d.recoveredSince.IsZero():
		d.recoveredSince = now
	}
	if now.Sub(d.recoveredSince) < stableTime {
		return d.Sick == "" // if the fault is known, its reason is shown until then
	}
	d.Risen, d.recoveredSince, d.Sick, d.Faults = false, time.Time{}, "", nil
	return false
}

// recordShown records whether a sample shows the device.
func (p *presence) recordShown(shown bool, at time.Time) {
	switch {
	case !shown:
		if p.misses++; p.misses == 1 {
			p.missingSince = at
		}
		p.gone, p.backSince = p.gone || p.misses >= minMisses && at.Sub(p.missingSince) >= goneAfter, time.Time{}
	case p.gone && p.backSince.IsZero():
		p.backSince = at
	case !p.gone || at.Sub(p.backSince) >= stableTime:
		*p = presence{}
	}
}

// maxFreeMemory is how much memory may be in use on a free device: what the driver needs, as far as
// that is known, or the reserve.
func (d *device) maxFreeMemory() int64 {
	room := max(d.Total-d.Memory, 256<<20)
	if d.driverMemoryKnown {
		room = max(room, min(d.driverMemory, 1<<30)+256<<20)
	}
	return room
}

// recordUse records a sample of the device's use: which programs of ended attempts are still there,
// and how much memory belongs to no program. settled says that no program of an attempt on it can
// have been mistaken for somebody else's.
func (d *device) recordUse(u *inventory.Use, at time.Time, owners map[int]owner, settled bool) {
	known, listed := int64(0), u.Listed
	var leftovers []string
	aliens := map[int]bool{}
	d.users = map[attemptKey]bool{}
	for _, p := range u.Processes {
		o := owners[p.PID]
		if p.Memory == inventory.Unknown {
			listed = false
		}
		known += max(p.Memory, 0)
		trial, left := d.leftovers[p.PID]
		switch {
		case o.running:
			d.users[o.key] = true
		case o.ours || left:
			leftovers = append(leftovers, fmt.Sprintf("%s, left by trial %s, is on it with %s",
				o.program, cmp.Or(trial, o.key.trial.String()), bytesText(p.Memory)))
		case o.unknown:
			if at.Sub(d.dirtySince) < maxDirtyTime { // usually a program of the last attempt that is exiting
				leftovers = append(leftovers,
					fmt.Sprintf("a program (pid %d) is on it with %s", p.PID, bytesText(p.Memory)))
			}
		case p.Memory <= negligibleMemory && (p.Graphics || p.Memory >= 0):
		default:
			d.users[attemptKey{}] = true
			if !p.Graphics {
				aliens[p.PID] = true
			}
		}
	}
	d.full = d.Total > 0 && u.Memory*100 >= d.Total*fullPercent
	d.recordForeign(aliens, owners, at, settled)
	nobody := max(u.Memory-known, 0)
	if listed && (!d.driverMemoryKnown || nobody < d.driverMemory) {
		d.driverMemory, d.driverMemoryKnown = nobody, true
	}
	if d.dirtySince.IsZero() || !at.After(d.dirtySince) {
		return
	}
	switch {
	case len(leftovers) > 0:
		d.heldBy = strings.Join(leftovers, "; ")
	case listed && nobody > d.maxFreeMemory():
		d.heldBy = bytesText(nobody) + " held by no program, which a reset frees (nvidia-smi --gpu-reset as root)"
	case !u.Listed && len(u.Processes) == 0 && len(d.users) == 0 && u.Memory > d.maxFreeMemory():
		d.heldBy = bytesText(u.Memory) + " in use"
	default:
		d.dirtySince, d.heldBy, d.leftovers = time.Time{}, "", nil
	}
}

const (
	// negligibleMemory is how much memory a program may have without counting: a desktop, or the
	// MPS server.
	negligibleMemory = 64 << 20
	// fullPercent is the share of a device's memory in use from which it counts as full.
	fullPercent = 95
)

// recordForeign records which programs that compute on the device have no owner. One counts when it
// is in two samples, or in a settled first one: what starts, or is adopted, later has a known main
// program by the second.
func (d *device) recordForeign(aliens map[int]bool, owners map[int]owner, now time.Time, settled bool) {
	confirmed := []string{}
	for pid := range aliens {
		if d.suspects[pid] || d.unsampled && settled {
			confirmed = append(confirmed, owners[pid].program)
		}
	}
	d.suspects, d.unsampled = aliens, false
	if len(confirmed) > 0 {
		slices.Sort(confirmed)
		d.foreignProgram, d.foreignSeen = "used by "+strings.Join(confirmed, ", ")+", which is not a trial", now
	}
}

func bytesText(n int64) string {
	if n < 0 {
		return "an unknown amount of memory"
	}
	return humanize.IBytes(uint64(n))
}
