// Package inventorytest provides simulated GPUs for tests on machines without any: a Source whose
// devices follow a script.
package inventorytest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/cluster/inventory"
)

// Fake is a Source of simulated GPUs. Script lines change them, from the test or from a file to
// which anything can append:
//
//	use DEVICE PID SIZE       the process uses memory of the device; 0 ends it
//	run DEVICE PID SIZE       likewise, until the process, a real one, ends
//	draw DEVICE PID SIZE      likewise, for a desktop that computes nothing
//	leak DEVICE SIZE          memory that no process holds
//	busy DEVICE PERCENT
//	xid DEVICE|? NUMBER       the driver reports an error; ? is an event without a device
//	recovery DEVICE ACTION    0 to 7, as NVML's field 230
//	mode DEVICE MODE          exclusive, prohibited or default
//	gone DEVICE               it falls off the bus silently
//	lost DEVICE               likewise, but the driver reports it
//	back DEVICE
//	wait fail|ok              whether watching for errors works
//	driver fail|ok            whether the driver can be called
//
// A device is an index, or the UUID of a GPU or an instance. An index with a dot is an instance,
// for example 1.0.
type Fake struct {
	file string

	mu     sync.Mutex
	read   int // bytes of the file that were executed
	gpus   []inventory.GPU
	gone   map[string]bool
	uses   map[string]*use
	faults []inventory.Fault
	wait   error
	driver error
}

// use is the current use of a device.
type use struct {
	processes []inventory.Process
	real      map[int]bool // processes that end on their own
	leaked    int64
	busy      int
}

// base is the memory that the driver itself uses on each device.
const base = 64 << 20

var _ inventory.Source = (*Fake)(nil)

// New returns the GPUs of a description, a list of COUNTxMODEL-GIB, for example
// "4xA100-40,1xT4-16". "2xA100-40@1" has no NVLink, "@2" links GPUs in pairs, and without it all
// GPUs of one kind are linked. "1xA100-40:1g.5gb*7" is in MIG mode, with seven instances. The seed
// makes UUIDs differ between nodes. The file, unless empty, holds script lines and is read again at
// each reading.
func New(description, seed, file string) (*Fake, error) {
	f := &Fake{file: file, gone: map[string]bool{}, uses: map[string]*use{}}
	for kind := range strings.SplitSeq(description, ",") {
		if err := f.add(strings.TrimSpace(kind), seed); err != nil {
			return nil, fmt.Errorf("GPUs %q: %w", kind, err)
		}
	}
	return f, nil
}

func (f *Fake) add(kind, seed string) error {
	kind, instances, mig := strings.Cut(kind, ":")
	kind, island, linked := strings.Cut(kind, "@")
	times, model, _ := strings.Cut(kind, "x")
	name, gib, _ := strings.Cut(model, "-")
	count, err := strconv.Atoi(times)
	size, err2 := strconv.Atoi(gib)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	width := count
	if linked {
		if width, err = strconv.Atoi(island); err != nil || width < 1 {
			return fmt.Errorf("%q is not the size of an island", island)
		}
	}
	first, capability := len(f.gpus), "8.0"
	switch strings.ToUpper(name) {
	case "H100", "H200":
		capability = "9.0"
	case "T4":
		capability = "7.5"
	}
	for i := range count {
		index := first + i
		g := inventory.GPU{
			Index: index, Name: "NVIDIA " + name + "-" + gib + "GB", Capability: capability,
			UUID:   fmt.Sprintf("GPU-%x", sha256.Sum256(fmt.Appendf(nil, "%s/%d", seed, index)))[:40],
			Memory: int64(size) << 30, Temperature: 40, Power: 60, Group: first + i/width*width,
			MIG: mig, Persistence: true,
		}
		if mig {
			g.Utilization, g.Group = inventory.Unknown, index
			if err := addInstances(&g, instances); err != nil {
				return err
			}
		}
		f.gpus = append(f.gpus, g)
	}
	return nil
}

func addInstances(g *inventory.GPU, text string) error {
	for part := range strings.SplitSeq(text, "+") {
		profile, times, _ := strings.Cut(part, "*")
		n, err := strconv.Atoi(times)
		_, gb, ok := strings.Cut(strings.TrimSuffix(profile, "gb"), ".")
		size, err2 := strconv.Atoi(gb)
		if err = errors.Join(err, err2); err != nil || !ok {
			return fmt.Errorf("%q is not a profile and a number, as in 1g.5gb*7", part)
		}
		for range n {
			i := len(g.Instances)
			g.Instances = append(g.Instances, inventory.Instance{
				UUID: "MIG-" + g.UUID[4:36] + fmt.Sprintf("%04d", i), Profile: profile,
				Memory: int64(size) << 30, GPUInstance: i + 7,
			})
		}
	}
	return nil
}

// GPUs returns the GPUs as they were created.
func (f *Fake) GPUs() []inventory.GPU {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.gpus)
}

// Do executes a line of a script.
func (f *Fake) Do(line string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doLocked(line)
}

func (f *Fake) doLocked(line string) error {
	w := strings.Fields(line)
	if len(w) == 0 {
		return nil
	}
	bad := fmt.Errorf("script line %q is not understood", line)
	w = append(w, "", "", "")
	switch w[0] {
	case "wait", "driver":
		var err error
		if w[1] == "fail" {
			err = errors.New("the driver has an error")
		}
		if w[0] == "wait" {
			f.wait = err
		} else {
			f.driver = err
		}
		return nil
	case "xid":
		n, err := strconv.Atoi(w[2])
		if err != nil {
			return bad
		}
		fault := inventory.Fault{Time: time.Now(), Xid: n, GPUInstance: inventory.Unknown,
			ComputeInstance: inventory.Unknown}
		if w[1] != "?" {
			g, in, _ := f.findLocked(w[1])
			if g == nil {
				return bad
			}
			fault.UUID = g.UUID
			if in != nil {
				fault.GPUInstance, fault.ComputeInstance = in.GPUInstance, in.ComputeInstance
			}
		}
		f.faults = append(f.faults, fault)
		return nil
	}
	g, _, uuid := f.findLocked(w[1])
	if g == nil {
		return bad
	}
	u := f.uses[uuid]
	if u == nil {
		u = &use{real: map[int]bool{}}
		f.uses[uuid] = u
	}
	switch w[0] {
	case "use", "run", "draw":
		pid, err := strconv.Atoi(w[2])
		size, err2 := humanize.ParseBytes(w[3])
		if errors.Join(err, err2) != nil {
			return bad
		}
		u.processes = slices.DeleteFunc(u.processes, func(p inventory.Process) bool { return p.PID == pid })
		if u.real[pid] = w[0] == "run"; size > 0 {
			u.processes = append(u.processes,
				inventory.Process{PID: pid, Memory: int64(size), Graphics: w[0] == "draw"})
		}
	case "leak":
		size, err := humanize.ParseBytes(w[2])
		if err != nil {
			return bad
		}
		u.leaked = int64(size)
	case "busy", "recovery":
		n, err := strconv.Atoi(w[2])
		if err != nil {
			return bad
		}
		if w[0] == "busy" {
			u.busy = n
		} else {
			g.Recovery = inventory.Recovery(n)
		}
	case "mode":
		if g.Mode = w[2]; w[2] == "default" {
			g.Mode = ""
		}
	case "gone":
		f.gone[g.UUID] = true
	case "lost":
		g.Problem = fmt.Sprintf("GPU %d is lost (it fell off the bus); restart the machine", g.Index)
	case "back":
		delete(f.gone, g.UUID)
		g.Problem = ""
	default:
		return bad
	}
	return nil
}

// findLocked returns a device by index or UUID.
func (f *Fake) findLocked(name string) (*inventory.GPU, *inventory.Instance, string) {
	for i := range f.gpus {
		g := &f.gpus[i]
		if name == g.UUID || name == strconv.Itoa(g.Index) {
			return g, nil, g.UUID
		}
		for k := range g.Instances {
			if in := &g.Instances[k]; name == in.UUID || name == fmt.Sprintf("%d.%d", g.Index, k) {
				return g, in, in.UUID
			}
		}
	}
	return nil, nil, ""
}

// executeLocked runs the commands appended to the file. It ignores a line until it is complete.
func (f *Fake) executeLocked() error {
	text, err := os.ReadFile(f.file)
	if f.file == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var problems []error
	for line := range strings.Lines(string(text[min(f.read, len(text)):])) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		f.read += len(line)
		problems = append(problems, f.doLocked(line))
	}
	return errors.Join(problems...)
}

// holdsLocked returns the current use of a device.
func (f *Fake) holdsLocked(uuid string) inventory.Use {
	held := inventory.Use{UUID: uuid, Memory: base, Listed: true}
	u := f.uses[uuid]
	if u == nil {
		return held
	}
	u.processes = slices.DeleteFunc(u.processes, func(p inventory.Process) bool {
		return u.real[p.PID] && errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH)
	})
	held.Memory += u.leaked
	held.Busy = u.busy
	held.Processes = slices.Clone(u.processes)
	for _, p := range u.processes {
		held.Memory += p.Memory
	}
	return held
}

// Read implements inventory.Source.
func (f *Fake) Read(_ context.Context, m *inventory.Machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.Driver, m.CUDA = "550.54.15", "12.4"
	if err := errors.Join(f.executeLocked(), f.driver); err != nil {
		m.GPUProblem = err.Error()
		return
	}
	for _, g := range f.gpus {
		if f.gone[g.UUID] {
			continue
		}
		held := f.holdsLocked(g.UUID)
		g.MemoryUsed, g.Utilization, g.Processes = held.Memory, held.Busy, len(held.Processes)
		g.Instances = slices.Clone(g.Instances)
		for i := range g.Instances {
			g.Instances[i].MemoryUsed = f.holdsLocked(g.Instances[i].UUID).Memory
		}
		m.GPUs = append(m.GPUs, g)
	}
}

// Sample implements inventory.Source.
func (f *Fake) Sample(context.Context) (inventory.Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.executeLocked(), f.driver); err != nil {
		return inventory.Sample{}, err
	}
	s := inventory.Sample{Time: time.Now(), Health: f.wait}
	if f.wait == nil {
		s.Faults, f.faults = f.faults, nil
	}
	for i := range f.gpus {
		g := &f.gpus[i]
		switch {
		case f.gone[g.UUID] || g.Problem != "":
		case g.MIG:
			for k := range g.Instances {
				s.Uses = append(s.Uses, f.holdsLocked(g.Instances[k].UUID))
			}
		default:
			s.Uses = append(s.Uses, f.holdsLocked(g.UUID))
		}
	}
	return s, nil
}

// Close implements inventory.Source.
func (f *Fake) Close() {}
