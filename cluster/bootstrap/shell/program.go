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

// plain are the bytes that stand for themselves in a quoted word of every login shell, of sh, and in the operand of printf.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./_-=,:+"

// wrap makes the command line that is sent. Whatever login shell there is (sh, bash, zsh, fish, csh) reads it: it has no more than
// words and single quotes, and all else stands in it in octal. It ends with sh in the login shell's place.
func wrap(program string) string {
	var octal strings.Builder
	for i := range len(program) {
		if b := program[i]; strings.IndexByte(plain, b) >= 0 {
			octal.WriteByte(b)
		} else {
			fmt.Fprintf(&octal, `\0%03o`, b)
		}
	}
	return `exec /bin/sh -c 'eval "$(printf %b "` + octal.String() + `")"'`
}

// mark makes a program print a line of its own first, on both outputs, so that what came before it can be told apart.
func mark(program string) (marked, line string) {
	nonce := "program-" + rand.Text()
	return "printf '%s\\n' " + nonce + "\nprintf '%s\\n' " + nonce + " >&2\n" + program, nonce + "\n"
}

// afterMark passes on what is written after the mark.
type afterMark struct {
	mark   string
	to     io.Writer
	failed func() // called once when to takes no more
	moved  atomic.Uint64
	busy   atomic.Bool // to is slow

	mu     sync.Mutex
	seen   bool
	before []byte
	err    error
}

// Write implements io.Writer.
func (a *afterMark) Write(p []byte) (int, error) {
	a.busy.Store(true)
	defer a.busy.Store(false)
	a.moved.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	rest := p
	if !a.seen {
		rest = a.findLocked(p)
	}
	if len(rest) == 0 || a.to == nil {
		return len(p), nil
	}
	if _, err := a.to.Write(rest); err != nil {
		a.err, a.to = err, nil
		if a.failed != nil {
			a.failed()
		}
	}
	return len(p), nil
}

// findLocked looks for the mark, and gives what follows it.
func (a *afterMark) findLocked(p []byte) (rest []byte) {
	a.before = append(a.before, p...)
	i := bytes.Index(a.before, []byte(a.mark))
	if i < 0 {
		if n := len(a.before) - tailSize; n > 0 { // the chatter of start-up files has no bound of its own
			a.before = append(a.before[:0], a.before[n:]...)
		}
		return nil
	}
	rest = bytes.Clone(a.before[i+len(a.mark):])
	a.seen, a.before = true, a.before[:i]
	return rest
}

// cut lets nothing more through.
func (a *afterMark) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.to = nil
}

// cause is why what was written could not be passed on.
func (a *afterMark) cause() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// started reports whether the mark came, and what came before it.
func (a *afterMark) started() (bool, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen, string(a.before)
}
