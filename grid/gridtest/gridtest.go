// Package gridtest gives tests of all packages what they need of the machine. Where the machine does not have it, the test is
// left out and says why; where CI=true nothing is left out, and the test fails.
package gridtest

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Program gives the path of a program that can be installed.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "needs "+name, err)
	}
	return path
}

// Root leaves the test out unless it runs as root, which it needs for what is named.
func Root(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, what+" need root", os.ErrPermission)
	}
}

// Device leaves the test out unless a device of this name is there.
func Device(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, "needs "+path, err)
	}
}

// SmallDisk mounts a file system in memory, of so many bytes as in "24m", until the test ends. flags are those of umount(2):
// with 0 the test fails if something in it is still open.
func SmallDisk(t testing.TB, size string, flags int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		missing(t, "needs to mount a small file system, which takes root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, flags); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func missing(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}
