package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diskName begins the name of a small disk; the id of the test's process follows.
const diskName = "mlfnode-hosts-"

// mountDisk mounts a small disk that stays over reboots of its host.
func (s *Stage) mountDisk(dir string) {
	s.t.Helper()
	if err := unix.Mount(diskName+strconv.Itoa(os.Getpid()), dir, "tmpfs", 0, "mode=0700,size="+s.options.Disk); err != nil {
		s.t.Fatalf("mount a disk for a host: %v", err)
	}
	s.disks = append(s.disks, dir)
}

// removeDeadDisks removes what tests that were killed have left.
func removeDeadDisks(t testing.TB) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		pid, ok := strings.CutPrefix(fields[0], diskName)
		if number, err := strconv.Atoi(pid); !ok || err != nil || alive(number) {
			continue
		}
		_ = unix.Unmount(fields[1], unix.MNT_DETACH) // another test may do the same
	}
}

// FillDisk leaves no room on the host's small disk.
func (h *Host) FillDisk() {
	h.stage.t.Helper()
	if h.stage.options.Disk == "" {
		h.stage.t.Fatal("fill the disk: this stage has no small disks")
	}
	f, err := os.OpenFile(h.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.stage.t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		h.stage.t.Fatal(err)
	}
}

// FreeDisk is the way back from FillDisk.
func (h *Host) FreeDisk() {
	h.stage.t.Helper()
	if err := os.Remove(h.ballast()); err != nil {
		h.stage.t.Fatal(err)
	}
}

func (h *Host) ballast() string { return filepath.Join(h.Home, "state", "ballast") }

// DiskUsed tells how full the host's small disk is, for a report.
func (h *Host) DiskUsed() string {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(h.ballast()), &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d of %d kB", (int64(st.Blocks)-int64(st.Bfree))*st.Bsize>>10, int64(st.Blocks)*st.Bsize>>10)
}
