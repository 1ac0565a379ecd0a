package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diskName begins the name of a small disk, or of the file that backs it; the PID of the test's
// process follows.
const diskName = "mlfnode-hosts-"

// stateDisk is where a host's own disk is mounted.
func (h *Host) stateDisk() string { return filepath.Join(h.Home, "state") }

// image returns the file that backs the disk of a host with Options.Lossy.
func (h *Host) image() string { return filepath.Join(h.Home, diskName+strconv.Itoa(os.Getpid())) }

// makeDisk gives a host a disk that survives reboots.
func (h *Host) makeDisk() {
	t, o := h.harness.t, h.harness.options
	t.Helper()
	if !o.Lossy {
		if err := unix.Mount(diskName+strconv.Itoa(os.Getpid()), h.stateDisk(), "tmpfs", 0,
			"mode=0700,size="+o.Disk); err != nil {
			t.Fatalf("mount a disk for a host: %v", err)
		}
		h.harness.disks = append(h.harness.disks, h.stateDisk())
		return
	}
	if out, err := exec.Command("mkfs.ext4", "-q", h.image(), o.Disk).CombinedOutput(); err != nil {
		t.Fatalf("make a disk for a host: %v\n%s", err, out)
	}
	h.mountImage()
	h.harness.disks = append(h.harness.disks, h.stateDisk())
}

// mountImage mounts the disk of a host with Options.Lossy. Its journal is written only when a
// program syncs, so a copy of the image between two syncs is what a power cut leaves.
func (h *Host) mountImage() {
	h.harness.t.Helper()
	mount := exec.Command("mount", "-o", "loop,commit=3600", h.image(), h.stateDisk())
	if out, err := mount.CombinedOutput(); err != nil {
		h.harness.t.Fatalf("mount the disk of a host: %v\n%s", err, out)
	}
}

// snapshot copies the disk without what the kernel has yet to write. Everything on the host is
// stopped.
func (h *Host) snapshot() {
	h.harness.t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", h.image(), h.image()+".cut").CombinedOutput(); err != nil {
		h.harness.t.Fatalf("copy the disk of a host: %v\n%s", err, out)
	}
}

// dropUnsynced replaces the disk with the copy. Everything on the host is dead.
func (h *Host) dropUnsynced() {
	h.harness.t.Helper()
	if err := unix.Unmount(h.stateDisk(), unix.MNT_DETACH); err != nil {
		h.harness.t.Fatalf("unmount the disk of a host: %v", err)
	}
	if err := os.Rename(h.image()+".cut", h.image()); err != nil {
		h.harness.t.Fatal(err)
	}
	h.mountImage()
}

// removeDeadDisks removes what killed tests have left behind.
func removeDeadDisks(t testing.TB) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		pid, ok := diskOwner(fields[0])
		if ok && !alive(pid) {
			_ = unix.Unmount(fields[1], unix.MNT_DETACH) // another test may do the same
		}
	}
}

// diskOwner returns the process that made a disk, determined from what is mounted.
func diskOwner(source string) (pid int, ok bool) {
	if loop, is := strings.CutPrefix(source, "/dev/loop"); is {
		file, _ := os.ReadFile("/sys/block/loop" + loop + "/loop/backing_file") // it may be gone
		source = filepath.Base(strings.TrimSuffix(strings.TrimSpace(string(file)), " (deleted)"))
	}
	text, is := strings.CutPrefix(source, diskName)
	pid, err := strconv.Atoi(text)
	return pid, is && err == nil
}

// FillDisk fills the host's small disk completely.
func (h *Host) FillDisk() {
	h.harness.t.Helper()
	if h.harness.options.Disk == "" {
		h.harness.t.Fatal("fill the disk: this harness has no small disks")
	}
	f, err := os.OpenFile(h.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.harness.t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		h.harness.t.Fatal(err)
	}
}

// FreeDisk undoes FillDisk.
func (h *Host) FreeDisk() {
	h.harness.t.Helper()
	if err := os.Remove(h.ballast()); err != nil {
		h.harness.t.Fatal(err)
	}
}

func (h *Host) ballast() string { return filepath.Join(h.stateDisk(), "ballast") }

// DiskUsed describes how full the host's small disk is, for a report.
func (h *Host) DiskUsed() string {
	var st unix.Statfs_t
	if err := unix.Statfs(h.stateDisk(), &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d of %d kB", (int64(st.Blocks)-int64(st.Bfree))*st.Bsize>>10, int64(st.Blocks)*st.Bsize>>10)
}
