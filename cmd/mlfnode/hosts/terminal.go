package hosts

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
	h.stage.t.Helper()
	master, screen, err := openTerminal()
	if err != nil {
		h.stage.t.Fatal(err)
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
		h.stage.t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = screen, screen, screen
	t := &Terminal{Proc: h.launch(cmd, shown.Name()), keyboard: master}
	t.read.Go(func() {
		defer shown.Close()
		_, _ = io.Copy(shown, master) // it ends with an error when the last program has left the terminal
	})
	h.stage.t.Cleanup(t.close)
	return t
}

// openTerminal makes a pair as pty(7) describes it: what is written to the one is read from the other.
func openTerminal() (keyboard, screen *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a terminal: %w", err)
	}
	keyboard = os.NewFile(uintptr(fd), "/dev/ptmx")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 200})
	}
	if err == nil {
		screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, keyboard.Close())
	}
	return keyboard, screen, nil
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
	Await(t.t, Patience, func() error {
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

// Close waits for the end of the program and gives its exit code and all that was shown.
func (t *Terminal) Close(limit time.Duration) (code int, screen string) {
	t.t.Helper()
	code = t.Exit(limit)
	t.read.Wait()
	return code, t.Screen()
}
