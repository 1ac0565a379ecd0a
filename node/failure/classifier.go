// Package failure determines from evidence why an attempt failed. It decides by what its caller saw
// and by rules, which are data: patterns of output lines with the failure class that each of them
// means. It does no I/O.
//
// The evidence is weighed in this order: what the executor knows (its own stops, the kernel's
// out-of-memory kills, errors of the container engine), faults of the GPUs that the attempt had,
// the last output, the exit code. Of the output only the decisive part counts: see streamEnd. The
// order of the rules is the order of causes, so that what comes first explains what comes later.
package failure

import (
	"regexp"
	"slices"
	"strconv"

	"mlfnode/grid"
)

// Evidence is what is known of an attempt that failed.
type Evidence struct {
	Class    grid.Class // as the executor sees it; any class but ClassExit and ClassSignal stands
	ExitCode int
	Device   DeviceFault

	NoGPU     bool // the attempt had no GPU
	GPUFull   bool // a GPU of the attempt was full at its end
	Neighbour bool // other programs used memory of a GPU of the attempt
	DiskFull  bool
	ShmFull   bool
	Container bool
	Resume    bool // the attempt was to resume from a checkpoint

	Stdout, Stderr []byte // their ends; MaxOutput bytes of each are examined
}

// MaxOutput is how many bytes of the end of each stream are examined.
const MaxOutput = 64 << 10

// DeviceFault is a fault of one of the attempt's GPUs while it ran. The zero value is none.
type DeviceFault struct {
	UUID    string
	Xid     int  // NVIDIA's number of the fault; 0 for none
	Gone    bool // the device is no longer there
	Several bool // the attempt had more than one device
}

// Verdict says why an attempt failed.
type Verdict struct {
	Class  grid.Class
	Rule   string // the rule that decided, by its name or by file and line; "" if none did
	Line   string // the line that the rule matched
	Hint   string // the rule's own; "" where that of the class applies
	Device string // UUID of the GPU that is to blame
}

// Classify weighs the evidence. It is safe for concurrent use.
func (r *Rules) Classify(e *Evidence) Verdict {
	plain := Verdict{Class: e.Class}
	if e.Class != grid.ClassExit && e.Class != grid.ClassSignal {
		return plain
	}
	device := deviceVerdict(e)
	if device.Class == grid.ClassGPUFault {
		return device
	}
	if v := r.search(e, r.output, r.streamsToSearch(e)); v.Rule != "" && (v.Class != e.Class || device.Rule == "") {
		if grid.FailureOf(v.Class).Suspect == grid.ScopeDevice {
			v.Device = e.Device.UUID
		}
		return v
	}
	if device.Rule != "" {
		return device
	}
	return plain
}

// streamsToSearch returns the streams to search. The one with the traceback that ended the program
// is enough, unless that traceback only says that something else failed, or the program was killed
// after it.
func (r *Rules) streamsToSearch(e *Evidence) []*streamEnd {
	stderr, stdout := parseStream(e.Stderr, r.isIndirect), parseStream(e.Stdout, r.isIndirect)
	for _, o := range []*streamEnd{stderr, stdout} {
		if o.exceptionLine >= 0 && !o.indirect && e.Class != grid.ClassSignal {
			return []*streamEnd{o}
		}
	}
	return []*streamEnd{stderr, stdout}
}

// deviceVerdict returns what a device's fault means for the attempt; a plain verdict if nothing.
func deviceVerdict(e *Evidence) Verdict {
	d := &e.Device
	if d.Gone {
		return Verdict{Class: grid.ClassGPUFault, Rule: "gpu_hw/gone", Device: d.UUID}
	}
	x := XidOf(d.Xid)
	if d.Xid == 0 || x.Class == grid.ClassNone || x.Link && !d.Several {
		return Verdict{Class: e.Class}
	}
	return Verdict{Class: x.Class, Rule: "xid/" + strconv.Itoa(d.Xid), Device: d.UUID}
}

// contextLines is how many lines before a match are examined for a rule's `after`.
const contextLines = 4

// search returns the verdict of the first rule that holds for the streams.
func (r *Rules) search(e *Evidence, rules []*rule, streams []*streamEnd) Verdict {
	hits := make([][]lineRef, len(r.patterns))
	for _, o := range streams {
		r.collectCandidates(o, hits)
	}
	for _, rule := range rules {
		if !rule.applies(e) {
			continue
		}
		if len(rule.patterns) == 0 {
			return rule.verdict(e, "")
		}
		for _, p := range rule.patterns {
			for _, at := range hits[p] {
				if rule.matches(r.patterns[p].re(), at) && !r.isNoise(at) {
					return rule.verdict(e, at.text())
				}
			}
		}
	}
	return Verdict{Class: e.Class}
}

// lineRef is a line of a stream.
type lineRef struct {
	output *streamEnd
	i      int
}

func (p lineRef) text() string { return p.output.lines[p.i] }

// collectCandidates records where the literals of each pattern occur in the decisive part, except
// in source code.
func (r *Rules) collectCandidates(o *streamEnd, hits [][]lineRef) {
	for i := o.from; i < len(o.lines); i++ {
		if o.code[i] {
			continue
		}
		at := lineRef{o, i}
		for _, p := range r.matcher.always {
			hits[p] = addCandidate(hits[p], at)
		}
		r.matcher.scan(o.lines[i], func(p int) { hits[p] = addCandidate(hits[p], at) })
	}
}

// isNoise reports whether a line is about something after which the program went on. The line with
// the exception is not.
func (r *Rules) isNoise(at lineRef) bool {
	noisy, known := at.output.noise[at.i]
	if !known {
		noisy = at.i != at.output.exceptionLine && matchesAny(r.noise, at.text())
		at.output.noise[at.i] = noisy
	}
	return noisy
}

// maxCandidates and maxCandidateBytes bound the lines, and roughly their bytes, on which one
// pattern is tried: half of them are the first and half the last ones that contain a literal of it.
// They bound the time for output that repeats near matches.
const (
	maxCandidates     = 16
	maxCandidateBytes = 4 << 10
)

func addCandidate(places []lineRef, at lineRef) []lineRef {
	n, most := len(places), max(2, min(maxCandidates, maxCandidateBytes/(len(at.text())+1)))
	switch {
	case n > 0 && places[n-1] == at:
		return places
	case n < most:
		return append(places, at)
	}
	copy(places[most/2:], places[most/2+1:])
	places[n-1] = at
	return places
}

// isIndirect reports whether a line only says that something else failed.
func (r *Rules) isIndirect(line string) bool { return matchesAny(r.indirect, line) }

func (r *rule) matches(re *regexp.Regexp, at lineRef) bool {
	line := at.text()
	if !re.MatchString(line) || matchesAny(r.unless, line) {
		return false
	}
	before := at.output.lines[max(0, at.i-contextLines):at.i]
	return r.after == nil || slices.ContainsFunc(before, func(line string) bool { return matchesAny(r.after, line) })
}

func matchesAny(all []*regexp.Regexp, line string) bool {
	return slices.ContainsFunc(all, func(re *regexp.Regexp) bool { return re.MatchString(line) })
}

// verdict returns the verdict of the rule. A rule of ClassExit says that the end is an ordinary
// one, so that a signal stays a signal.
func (r *rule) verdict(e *Evidence, line string) Verdict {
	class := r.class
	if class == grid.ClassExit && e.Class != grid.ClassNone {
		class = e.Class
	}
	return Verdict{Class: class, Rule: r.name, Line: line, Hint: r.hint}
}

// conditions are what a rule may require in addition to its patterns.
var conditions = map[string]func(*Evidence) bool{
	"no_gpu":     func(e *Evidence) bool { return e.NoGPU },
	"gpu_full":   func(e *Evidence) bool { return e.GPUFull || e.Neighbour },
	"disk_full":  func(e *Evidence) bool { return e.DiskFull },
	"shm_full":   func(e *Evidence) bool { return e.ShmFull },
	"container":  func(e *Evidence) bool { return e.Container },
	"resume":     func(e *Evidence) bool { return e.Resume },
	"not_resume": func(e *Evidence) bool { return !e.Resume },
}

// applies reports whether the circumstances are those that the rule requires.
func (r *rule) applies(e *Evidence) bool {
	if len(r.codes) > 0 && !slices.Contains(r.codes, e.ExitCode) {
		return false
	}
	return !slices.ContainsFunc(r.when, func(name string) bool { return !conditions[name](e) })
}
