package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/failure"
)

// maxRulesFile bounds the size of a project's file.
const maxRulesFile = 256 << 10

// failureRules are the rules that identify failure classes. They are compiled when the first
// attempt fails.
type failureRules struct {
	node []failure.Source // of the node's own file

	mu       sync.Mutex
	compiled map[string]*failure.Rules // by the text of the project's file
}

// maxCompiled bounds the projects whose rules stay compiled.
const maxCompiled = 8

// newFailureRules reads the node's own file, if there is one, and checks it.
func newFailureRules(dir string) (*failureRules, error) {
	node, err := failure.ReadFile(dir)
	if err != nil {
		return nil, fmt.Errorf("read the failure rules: %w", err)
	}
	if len(node) == 0 {
		return &failureRules{}, nil
	}
	_, err = failure.NewRules(node...)
	return &failureRules{node: node}, err
}

// forProject returns the rules for attempts of a project. An invalid file, which the submission
// accepted, is ignored.
func (r *failureRules) forProject(project string) (*failure.Rules, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found := r.compiled[project]; found != nil {
		return found, nil
	}
	files := append([]failure.Source{{Name: failure.FileName, Text: []byte(project)}}, r.node...)
	found, wrong := failure.NewRules(files...)
	if wrong != nil {
		var err error
		if found, err = failure.NewRules(r.node...); err != nil {
			return nil, err
		}
	}
	if len(r.compiled) >= maxCompiled || r.compiled == nil {
		r.compiled = map[string]*failure.Rules{}
	}
	r.compiled[project] = found
	return found, wrong
}

// classifier determines the failure classes of attempts.
type classifier struct {
	rules          *failureRules
	cfg            *Config
	devices        *DeviceTracker
	avoidedDevices *avoidedDevices
}

// classify determines from output and circumstances why the program of an attempt failed. It
// returns the decisive line of output.
func (cl *classifier) classify(a *attempt, result *grid.Result) (line string) {
	if result.Rule != "" || a.spool == nil || result.Class != grid.ClassExit && result.Class != grid.ClassSignal {
		return ""
	}
	rules, err := cl.rules.forProject(readProjectRules(a.spool.work))
	if err != nil {
		cl.cfg.Logger.Warn("failure rules can't be used", "sweep", a.id.Sweep, "err", err)
	}
	if rules == nil {
		return ""
	}
	need, seen := &a.task.Resources, &a.devices.evidence
	e := failure.Evidence{
		Class: result.Class, ExitCode: result.ExitCode,
		NoGPU: !need.NeedsGPU(), Container: a.task.Image != "",
		Resume:   a.checkpoint != nil && a.checkpoint.state.Resume,
		DiskFull: nearlyFullDisk(os.TempDir()) || nearlyFullDisk(a.spool.dir), ShmFull: nearlyFullDisk("/dev/shm"),
		Stdout: readEnd(a.spool.stdout, failure.MaxOutput), Stderr: readEnd(a.spool.stderr, failure.MaxOutput),
		GPUFull: seen.Full, Neighbour: seen.Neighbours,
		Device: failure.DeviceFault{UUID: seen.Device, Xid: seen.Xid, Gone: seen.Gone, Several: seen.Several},
	}
	v := rules.Classify(&e)
	if v.Rule == "" {
		return ""
	}
	if v.Class == grid.ClassCUDAMemory && e.Neighbour {
		v.Class = grid.ClassCUDAShared
	}
	known := grid.FailureOf(v.Class)
	if v.Class == result.Class {
		result.Reason = fmt.Sprintf("%s (rule %s)", result.Reason, v.Rule)
	} else {
		result.Reason = fmt.Sprintf("%s: %s (%s, rule %s)", result.Reason, known.Cause, v.Class, v.Rule)
	}
	result.Class, result.Rule, result.Device = v.Class, v.Rule, v.Device
	if watch := cl.devices.watch; watch != nil && v.Device != "" && known.Owner == grid.OwnerDevice {
		watch.RecordFailure(v.Device, a.id, v.Class)
	}
	if known.Avoid == grid.ScopeDevice {
		cl.avoidedDevices.add(a.id, result.Device, time.Now())
	}
	if v.Hint != "" {
		result.Reason = joinReason(result.Reason, "hint: "+v.Hint)
	}
	line = strings.TrimSpace(strings.ToValidUTF8(v.Line, "\uFFFD"))
	return strings.ToValidUTF8(line[:min(len(line), reasonBytes/4)], "")
}

// readProjectRules returns the text of the project's own rules, "" for none.
func readProjectRules(dir string) string {
	// The program may have replaced the file by a pipe, which must not block.
	f, err := os.OpenFile(filepath.Join(dir, failure.FileName), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxRulesFile {
		return ""
	}
	return string(readEnd(f, maxRulesFile))
}

// readEnd reads the end of a file.
func readEnd(f *os.File, most int64) []byte {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil
	}
	from := max(0, info.Size()-most)
	b := make([]byte, info.Size()-from)
	n, _ := f.ReadAt(b, from) // a file that shrinks gives what is left
	return b[:n]
}

// nearlyFullDisk reports whether a file system has less than 1 % and less than minFreeDisk free.
func nearlyFullDisk(path string) bool {
	d, err := readDiskUsage(path)
	return err == nil && d.size > 0 && d.free*100 < d.size && d.free < minFreeDisk
}
