package devices

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/procfs"
)

// owner says whose program uses a device.
type owner struct {
	key     attemptKey // of the attempt; zero when it is not one of this node's
	running bool       // the attempt runs
	ours    bool       // the program was started by this node
	unknown bool       // not known: it is exiting, or in a PID namespace that this process does not see
	program string     // for people: "python3 (pid 42, user ada)"
}

// maxAncestors bounds how far up the process tree an owner is searched for.
const maxAncestors = 64

// attemptIndex is what programs are recognised by.
type attemptIndex struct {
	attempts   map[attemptKey]bool
	started    map[attemptKey]bool // those with a main program or a container
	programs   map[int]attemptKey
	containers map[string]attemptKey
}

// index returns what the programs of the attempts are recognised by.
func (f *findings) index() *attemptIndex {
	k := &attemptIndex{map[attemptKey]bool{}, map[attemptKey]bool{}, map[int]attemptKey{}, map[string]attemptKey{}}
	for id, a := range f.attempts {
		k.attempts[id] = true
		k.started[id] = a.pid > 0 || a.container != ""
		if a.pid > 0 {
			k.programs[a.pid] = id
		}
		if a.container != "" {
			k.containers[a.container] = id
		}
	}
	return k
}

// ownerOf examines a program and its ancestors: the programs of an attempt have its trial in their
// environment, descend from its main program, or are in its container's cgroup. Programs of this
// node have cacheDir as MLF_CACHE.
func (by *attemptIndex) ownerOf(pid int, cacheDir string) owner {
	o := owner{}
	group := procfs.Text(pid, "cgroup")
	for id, k := range by.containers {
		if strings.Contains(group, id) {
			o.key, o.running, o.ours = k, true, true
			return o
		}
	}
	for at, n := pid, 0; at > 1 && n < maxAncestors; n++ {
		if k, ok := by.programs[at]; ok {
			o.key, o.running, o.ours = k, true, true
			return o
		}
		k, cache := parseEnviron([]byte(procfs.Text(at, "environ")))
		if by.attempts[k] {
			o.key, o.running, o.ours = k, true, true
			return o
		}
		if cache != "" && cache == cacheDir {
			o.key, o.ours, o.program = k, true, programText(pid)
			return o
		}
		s, _ := procfs.ReadStat(at)
		at = s.Parent
	}
	o.program = programText(pid)
	o.unknown = procfs.Text(pid, "cmdline") == ""
	return o
}

// parseEnviron reads from an environment which attempt, of which node, a program belongs to.
func parseEnviron(environ []byte) (k attemptKey, cache string) {
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := strings.Cut(string(entry), "=")
		switch name {
		case "MLF_TRIAL":
			k.trial, _ = grid.ParseTarget(value) // the zero trial is none
		case "MLF_ATTEMPT":
			k.number, _ = strconv.Atoi(value)
		case "MLF_CACHE":
			cache = value
		}
	}
	return k, cache
}

// maxProgram bounds the name of a program. The kernel keeps 15 bytes.
const maxProgram = 32

// programText describes a program for people. It may be anybody's, so its name is made safe to
// print.
func programText(pid int) string {
	name := printable.Clip(printable.Line(bytes.TrimSpace([]byte(procfs.Text(pid, "comm")))), maxProgram)
	if name == "" {
		name = "a program"
	}
	text := fmt.Sprintf("%s (pid %d", name, pid)
	if uid, ok := procfs.Owner(pid); ok {
		text += ", user " + userText("/etc/passwd", uint32(uid))
	}
	return text + ")"
}

// userText returns the name of a user, or the number of one that is not in the file. Other sources
// of names, such as a network directory, are not asked: they may hang.
func userText(file string, uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	text, err := os.ReadFile(file)
	if err != nil {
		return number
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == number {
			return printable.Clip(printable.Line([]byte(f[0])), maxProgram)
		}
	}
	return number
}
