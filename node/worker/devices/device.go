package devices

import (
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
	allocator.Device                     // its state is what was judged last
	lasting          allocator.State     // the last state that was more than a moment's
	broken           string              // why its driver can't use it, as it was read last; "" when it can
	gpu              inventory.GPU       // the whole GPU, as it was read last
	instance         *inventory.Instance // nil for a whole GPU

	missed  int       // looks in a row in which it was not shown
	missing time.Time // since when it is not
	gone    bool      // it was not shown for so long that it counts as gone
	back    time.Time // since when it is shown again after that

	dirty time.Time      // when a trial ended there whose memory has not been seen free since; zero when it has
	held  string         // what holds the memory then
	left  map[int]string // programs of attempts that have ended, with their trials
	base  int64          // memory that the driver itself needs: the least that no program held
	seen  bool           // base is known
	fresh bool           // it has not been looked at yet

	suspects map[int]bool // programs of nobody, seen once
	foreign  string       // the program of somebody else
	alien    time.Time    // when it was seen last
	full     bool         // at least 95 % of the memory was in use at the last look
	others   map[key]bool // attempts and, with the zero key, programs of others that used its memory at the last look

	*record
	healed time.Time // since when the driver does not ask for a recovery any more
}

// strike is an outcome that was blamed on a device.
type strike struct {
	At    time.Time    `json:"at"`
	Trial grid.TrialID `json:"trial"`
}

// strikesUntilSick is how many of them within a day take a device out of service.
const strikesUntilSick = 3

// readFrom takes over the figures of the device's GPU.
func (d *device) readFrom(m *inventory.Machine) {
	for i := range m.GPUs {
		g := &m.GPUs[i]
		if g.UUID != d.UUID && g.UUID != d.Parent {
			continue
		}
		d.gpu = *g
		for k := range g.Instances {
			if g.Instances[k].UUID == d.UUID {
				d.instance = &g.Instances[k]
			}
		}
	}
}

// label names the device for people: 1, or 1.0 for an instance.
func (d *device) label() string {
	text := strconv.Itoa(d.Index)
	for k := range d.gpu.Instances {
		if d.Parent != "" && d.gpu.Instances[k].UUID == d.UUID {
			text += "." + strconv.Itoa(k)
		}
	}
	return text
}

// judge says which state the device is in, by what was known of it at a moment.
func (d *device) judge(now time.Time, foreign Foreign) (allocator.State, string) {
	switch {
	case d.gone && d.broken != "":
		return allocator.Gone, d.broken
	case d.gone && !d.back.IsZero():
		return allocator.Gone, "the driver shows it again; it is used once that lasts a minute"
	case d.gone:
		return allocator.Gone, "the driver does not show it any more; restart the machine, and look at its power and its slot"
	case d.broken != "":
		return allocator.Sick, d.broken
	case d.recovering(now):
		return allocator.Sick, "the driver says that it " + d.gpu.Recovery.String()
	case d.Sick != "":
		return allocator.Sick, d.Sick
	case !d.dirty.IsZero():
		return allocator.Dirty, d.holding(now)
	case foreign == Avoid && d.foreign != "" && now.Sub(d.alien) < foreignGone:
		return allocator.Foreign, d.foreign + "; gpus.foreign: ignore in node.yaml would share it"
	}
	return allocator.Ready, ""
}

// recovering reports whether the driver asks for a recovery. When it did after a fault and has stopped asking for a minute, the fault is
// over, too.
func (d *device) recovering(now time.Time) bool {
	switch {
	case d.gpu.Recovery > inventory.RecoveryNone:
		d.Risen, d.healed = true, time.Time{}
		return true
	case !d.Risen || d.gpu.Recovery == inventory.RecoveryUnknown:
		return false
	case d.healed.IsZero():
		d.healed = now
	}
	if now.Sub(d.healed) < steady {
		return d.Sick == "" // of a fault that is known the reason is told until then
	}
	d.Risen, d.healed, d.Sick, d.Faults = false, time.Time{}, "", nil
	return false
}

// holding says what keeps the device from being free.
func (d *device) holding(now time.Time) string {
	if d.fresh {
		return "it has not been looked at yet"
	}
	if d.held == "" || now.Sub(d.dirty) < dirtySoon {
		return "its last trial has ended, and its memory is not free yet"
	}
	return d.held + " since " + d.dirty.UTC().Format("15:04 MST")
}

// show takes over whether a sample shows the device. The driver may lose one without a word.
func (d *device) show(shown bool, at time.Time) {
	switch {
	case !shown:
		if d.missed++; d.missed == 1 {
			d.missing = at
		}
		d.gone, d.back = d.gone || d.missed >= missesToTell && at.Sub(d.missing) >= goneAfter, time.Time{}
	case d.gone && d.back.IsZero():
		d.back = at
	case !d.gone || at.Sub(d.back) >= steady:
		d.missed, d.gone, d.back = 0, false, time.Time{}
	}
}

// leave notes programs of an attempt that has ended.
func (d *device) leave(pids []int, trial grid.TrialID) {
	for _, pid := range pids {
		if d.left == nil {
			d.left = map[int]string{}
		}
		d.left[pid] = trial.String()
	}
}

// room is how much memory may be in use on a free device: what the driver needs, as far as that is known, or the reserve.
func (d *device) room() int64 {
	room := max(d.Total-d.Memory, 256<<20)
	if d.seen {
		room = max(room, min(d.base, 1<<30)+256<<20)
	}
	return room
}

// use takes over a sample of the device's use at a moment: which programs of ended attempts are still there, and how much memory nobody holds.
// Settled says that no program of an attempt on it can have been taken for anybody's.
func (d *device) use(u *inventory.Use, at time.Time, owners map[int]owner, settled bool) {
	known, listed := int64(0), u.Listed
	var leftovers []string
	aliens := map[int]bool{}
	d.others = map[key]bool{}
	for _, p := range u.Processes {
		o := owners[p.PID]
		if p.Memory == inventory.Unknown {
			listed = false
		}
		known += max(p.Memory, 0)
		trial, left := d.left[p.PID]
		switch {
		case o.running:
			d.others[o.key] = true
		case o.ours || left:
			if trial == "" {
				trial = o.key.trial.String()
			}
			leftovers = append(leftovers, fmt.Sprintf("%s, left by trial %s, is on it with %s", o.program, trial, bytesText(p.Memory)))
		case o.unknown:
			if at.Sub(d.dirty) < dirtySoon { // mostly it is one of the last attempt's, on its way out
				leftovers = append(leftovers, fmt.Sprintf("a program (pid %d) is on it with %s", p.PID, bytesText(p.Memory)))
			}
		case p.Memory <= smallContext && (p.Graphics || p.Memory >= 0):
		default:
			d.others[key{}] = true
			if !p.Graphics {
				aliens[p.PID] = true
			}
		}
	}
	d.full = d.Total > 0 && u.Memory*100 >= d.Total*fullPercent
	d.meetAliens(aliens, owners, at, settled)
	nobody := max(u.Memory-known, 0)
	if listed && (!d.seen || nobody < d.base) {
		d.base, d.seen = nobody, true
	}
	if d.dirty.IsZero() || !at.After(d.dirty) {
		return
	}
	switch {
	case len(leftovers) > 0:
		d.held = strings.Join(leftovers, "; ")
	case listed && nobody > d.room():
		d.held = bytesText(nobody) + " held by no program, which a reset frees (nvidia-smi --gpu-reset as root)"
	case !u.Listed && len(u.Processes) == 0 && len(d.others) == 0 && u.Memory > d.room():
		d.held = bytesText(u.Memory) + " in use"
	default:
		d.dirty, d.held, d.left = time.Time{}, "", nil
	}
}

const (
	// smallContext is how much memory a program may have that matters to nobody: a desktop, or the server of MPS.
	smallContext = 64 << 20
	// fullPercent is how much of a device's memory is in use when it counts as full.
	fullPercent = 95
)

// meetAliens takes over which programs compute on the device that are nobody's. One counts when it is there in two looks, or in a
// settled first one: what is begun, or taken over, later has a main program by the second.
func (d *device) meetAliens(aliens map[int]bool, owners map[int]owner, now time.Time, settled bool) {
	confirmed := []string{}
	for pid := range aliens {
		if d.suspects[pid] || d.fresh && settled {
			confirmed = append(confirmed, owners[pid].program)
		}
	}
	d.suspects, d.fresh = aliens, false
	if len(confirmed) > 0 {
		slices.Sort(confirmed)
		d.foreign, d.alien = "used by "+strings.Join(confirmed, ", ")+", which is not a trial", now
	}
}

func bytesText(n int64) string {
	if n < 0 {
		return "an unknown amount of memory"
	}
	return humanize.IBytes(uint64(n))
}
