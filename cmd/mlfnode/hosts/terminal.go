package hosts

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mlfnode/grid/gridtest"
	"mlfnode/grid/lazyregexp"
)

// Terminal is a program that runs on a terminal of a host, with a simulated user who types.
type Terminal struct {
	*Proc
	keyboard *os.File
	read     sync.WaitGroup
	seen     int // how much of the screen Expect has consumed
}

// OnTerminal starts a command on a terminal, which shows its output and echoes what is typed.
func (h *Host) OnTerminal(cmd *exec.Cmd) *Terminal {
	h.harness.t.Helper()
	if signal.Ignored(syscall.SIGHUP) { // as under nohup; the command would ignore it as well
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	master, screen, err := gridtest.Terminal(200, 40)
	if err != nil {
		h.harness.t.Fatal(err)
	}
	defer screen.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if c := cmd.SysProcAttr.Credential; c != nil {
		_ = screen.Chown(int(c.Uid), int(c.Gid)) // we are root
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	shown, err := os.CreateTemp(h.temp(), "output-")
	if err != nil {
		h.harness.t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	t := &Terminal{Proc: h.Processes.start(cmd, shown.Name()), keyboard: master}
	t.read.Go(func() {
		defer shown.Close()
		_, _ = io.Copy(shown, master) // it ends with an error when the last program has left the terminal
	})
	h.harness.t.Cleanup(t.close)
	return t
}

func (t *Terminal) close() {
	_ = t.keyboard.Close() // programs that still run there get SIGHUP
	t.read.Wait()
}

// Screen returns everything that has been shown so far.
func (t *Terminal) Screen() string { return strings.ReplaceAll(t.Output(), "\r\n", "\n") }

// Expect waits until the text is shown, after the text that the last Expect waited for.
func (t *Terminal) Expect(text string) {
	t.t.Helper()
	WaitFor(t.t, Timeout, func() error {
		screen := t.Screen()
		at := strings.Index(screen[t.seen:], text)
		if at < 0 {
			return fmt.Errorf("the terminal shows\n%s\nwant %q after the first %d bytes", tail(screen), text, t.seen)
		}
		t.seen += at + len(text)
		return nil
	})
}

// Type types a line.
func (t *Terminal) Type(line string) { t.Press(line + "\n") }

// Press types without the return key. "\x03" is ^C.
func (t *Terminal) Press(keys string) {
	t.t.Helper()
	if _, err := t.keyboard.WriteString(keys); err != nil {
		t.t.Fatalf("type: %v", err)
	}
}

// HangUp closes the terminal, like a user who closes its window: programs that run there get
// SIGHUP.
func (t *Terminal) HangUp() { t.close() }

// Close waits for the end of the program and returns its exit code and everything that was shown.
func (t *Terminal) Close(limit time.Duration) (code int, screen string) {
	t.t.Helper()
	code = t.Exit(limit)
	t.read.Wait()
	return code, t.Screen()
}

// Lines returns the final content of the terminal's lines, where programs overwrite what they have
// written. It interprets only the escape sequences that mlfnode prints, which move up (CSI A),
// erase to the end of the line (CSI K) and to the end of the screen (CSI J).
func (t *Terminal) Lines() []string {
	lines, at := []string{""}, 0
	for text := t.Screen(); text != ""; {
		m := sequence.Get().FindStringSubmatch(text)
		switch {
		case m == nil && text[0] == '\n':
			if at++; at == len(lines) {
				lines = append(lines, "")
			}
		case m == nil:
			lines[at] += text[:1]
		case m[2] == "A":
			n, _ := strconv.Atoi(m[1]) // without a number there are no lines to go up
			at = max(at-n, 0)
		case m[2] == "J":
			lines = append(lines[:at], "")
		default: // including a carriage return: what follows it overwrites the line
			lines[at] = ""
		}
		if m == nil {
			text = text[1:]
		} else {
			text = text[len(m[0]):]
		}
	}
	return lines
}

var sequence = lazyregexp.New(`^(?:\r|\x1b\[(\d*)([AJK]))`)
