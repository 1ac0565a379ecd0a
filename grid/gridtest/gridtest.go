// Package gridtest gives tests of all packages what they need of the machine. Where the machine does not have it, the test is
// left out and says why; where CI=true nothing is left out, and the test fails.
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

// Program gives the path of a program that can be installed.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "needs "+name, err)
	}
	return path
}

// FreePort gives a TCP port of loopback on which nobody listens.
func FreePort(t testing.TB) int {
	t.Helper()
	return FreePorts(t, "127.0.0.1", 1)[0]
}

// FreePorts gives different TCP ports of an address on which nobody listens.
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

// RunWithProgram builds mlfnode, has program point to it, and runs the tests of a package. It gives the exit code, for TestMain.
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

// Terminal makes a pair of terminals as pty(7) describes it: what is written to the one is read from the other.
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

// Root leaves the test out unless it runs as root, which it needs for what is named.
func Root(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, what+" need root", os.ErrPermission)
	}
}

// Device leaves the test out unless a device of this name is there.
func Device(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		Missing(t, "needs "+path, err)
	}
}

// SmallDisk mounts a file system in memory, of so many bytes as in "24m", until the test ends. flags are those of umount(2):
// with 0 the test fails if something in it is still open.
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

// Missing leaves the test out for want of something, or fails where nothing may be left out.
func Missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}
