// Package gridtest provides tests of all packages with programs and devices of the machine. If the
// machine lacks one, the test is skipped with the reason; with CI=true the test fails instead.
package gridtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Program returns the path of a program that can be installed.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "needs "+name, err)
	}
	return path
}

// FreePort returns a free TCP port of the loopback interface.
func FreePort(t testing.TB) int {
	t.Helper()
	return FreePorts(t, "127.0.0.1", 1)[0]
}

// FreePorts returns n different free TCP ports of an address.
func FreePorts(t testing.TB, address string, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// RunWithProgram builds mlfnode, sets program to its path, and runs the tests of a package. It
// returns the exit code, for TestMain.
func RunWithProgram(m *testing.M, program *string, flags ...string) int {
	dir, err := os.MkdirTemp("", "mlfnode-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*program = filepath.Join(dir, "mlfnode")
	args := append(append([]string{"build"}, flags...), "-o", *program, "mlfnode/cmd/mlfnode")
	if out, err := exec.CommandContext(context.Background(), "go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build mlfnode: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// Terminal opens a pseudo-terminal pair, see pty(7): what is written to one end is read from the
// other.
func Terminal(columns, rows uint16) (keyboard, screen *os.File, err error) {
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
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		return nil, nil, errors.Join(err, keyboard.Close())
	}
	return keyboard, screen, nil
}

// Root skips the test unless it runs as root. what names the purpose for the message.
func Root(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, what+" need root", os.ErrPermission)
	}
}

// Device skips the test unless a device exists at path.
func Device(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(t, "needs "+path, err)
	}
}

// SmallDisk mounts an in-memory file system of the given size, for example "24m", until the test
// ends. flags are those of umount(2): with 0 the test fails if a file in it is still open.
func SmallDisk(t testing.TB, size string, flags int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		Missing(t, "needs to mount a small file system, which takes root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, flags); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// Missing skips the test because something is missing, or fails it if no test may be skipped.
func Missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}
