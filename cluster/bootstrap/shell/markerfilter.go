package shell

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// safeChars are the bytes that stand for themselves in a quoted word of every login shell, of sh,
// and in the operand of printf.
const safeChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./_-=,:+"

// commandLine makes the command line that is sent. Whatever login shell there is (sh, bash, zsh,
// fish, csh) reads it: it has no more than words and single quotes, and all else stands in it in
// octal. It ends with sh in the login shell's place.
func commandLine(program string) string {
	var octal strings.Builder
	for i := range len(program) {
		if b := program[i]; strings.IndexByte(safeChars, b) >= 0 {
			octal.WriteByte(b)
		} else {
			fmt.Fprintf(&octal, `\0%03o`, b)
		}
	}
	return `exec /bin/sh -c 'eval "$(printf %b "` + octal.String() + `")"'`
}

// withMarker makes a program print a line of its own first, on both outputs, so that what came
// before it can be told apart.
func withMarker(program string) (marked, line string) {
	nonce := "program-" + rand.Text()
	return "printf '%s\\n' " + nonce + "\nprintf '%s\\n' " + nonce + " >&2\n" + program, nonce + "\n"
}

// markerFilter passes on what is written after the mark.
type markerFilter struct {
	marker string
	dst    io.Writer
	failed func() // called once when dst fails
	writes atomic.Uint64
	busy   atomic.Bool // a write to dst is in progress

	mu         sync.Mutex
	markerSeen bool
	before     []byte
	err        error
}

// Write implements io.Writer.
func (f *markerFilter) Write(p []byte) (int, error) {
	f.busy.Store(true)
	defer f.busy.Store(false)
	f.writes.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := p
	if !f.markerSeen {
		rest = f.findLocked(p)
	}
	if len(rest) == 0 || f.dst == nil {
		return len(p), nil
	}
	if _, err := f.dst.Write(rest); err != nil {
		f.err, f.dst = err, nil
		if f.failed != nil {
			f.failed()
		}
	}
	return len(p), nil
}

// findLocked looks for the mark, and gives what follows it.
func (f *markerFilter) findLocked(p []byte) (rest []byte) {
	f.before = append(f.before, p...)
	i := bytes.Index(f.before, []byte(f.marker))
	if i < 0 {
		if n := len(f.before) - tailSize; n > 0 { // the chatter of start-up files has no bound of its own
			f.before = append(f.before[:0], f.before[n:]...)
		}
		return nil
	}
	rest = bytes.Clone(f.before[i+len(f.marker):])
	f.markerSeen, f.before = true, f.before[:i]
	return rest
}

// discard lets nothing more through.
func (f *markerFilter) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dst = nil
}

// result returns whether the mark came, what came before it, and why what was written could not be
// passed on.
func (f *markerFilter) result() (started bool, before string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.markerSeen, string(f.before), f.err
}
