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

// Terminal is a program that runs on a terminal of a host, and somebody who types there.
type Terminal struct {
	*Proc
	keyboard *os.File
	read     sync.WaitGroup
	seen     int // Expect has seen so much of the screen
}

// OnTerminal starts a command on a terminal, which shows what it prints and echoes what is typed.
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
	t := &Terminal{Proc: h.launch(cmd, shown.Name()), keyboard: master}
	t.read.Go(func() {
		defer shown.Close()
		_, _ = io.Copy(shown, master) // it ends with an error when the last program has left the terminal
	})
	h.harness.t.Cleanup(t.close)
	return t
}

func (t *Terminal) close() {
	_ = t.keyboard.Close() // what still runs there gets SIGHUP
	t.read.Wait()
}

// Screen is all that was shown so far.
func (t *Terminal) Screen() string { return strings.ReplaceAll(t.Output(), "\r\n", "\n") }

// Expect waits until the text is shown, after what the last Expect has waited for.
func (t *Terminal) Expect(text string) {
	t.t.Helper()
	WaitFor(t.t, Patience, func() error {
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

// HangUp closes the terminal, as somebody does who closes its window: what runs there gets SIGHUP.
func (t *Terminal) HangUp() { t.close() }

// Close waits for the end of the program and gives its exit code and all that was shown.
func (t *Terminal) Close(limit time.Duration) (code int, screen string) {
	t.t.Helper()
	code = t.Exit(limit)
	t.read.Wait()
	return code, t.Screen()
}

// Lines is what the terminal has on its lines in the end, where programs write over what they have written: of all sequences it obeys
// those that mlfnode prints, which go up (CSI A), erase to the end of the line (CSI K) and to the end of the screen (CSI J).
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
			n, _ := strconv.Atoi(m[1]) // none is given where nothing is to go up
			at = max(at-n, 0)
		case m[2] == "J":
			lines = append(lines[:at], "")
		default: // a carriage return too: what it goes back for is written over
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
