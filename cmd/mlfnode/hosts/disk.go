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

func diskSource() string { return diskName + strconv.Itoa(os.Getpid()) }

// Disk is a host's own disk, which holds its state and survives reboots. Only hosts of a harness
// with Options.Disk have one.
type Disk struct {
	t       testing.TB
	dir     string // where it is mounted
	image   string // the file that backs it, with Options.Lossy
	size    string
	lossy   bool
	created bool
}

func newDisk(hs *Harness, home string) *Disk {
	return &Disk{t: hs.t, dir: filepath.Join(home, "state"), image: filepath.Join(home, diskSource()),
		size: hs.options.Disk, lossy: hs.options.Lossy}
}

// create makes the disk, and mounts it.
func (d *Disk) create() {
	d.t.Helper()
	if !d.lossy {
		if err := unix.Mount(diskSource(), d.dir, "tmpfs", 0, "mode=0700,size="+d.size); err != nil {
			d.t.Fatalf("mount a disk for a host: %v", err)
		}
		d.created = true
		return
	}
	if out, err := exec.Command("mkfs.ext4", "-q", d.image, d.size).CombinedOutput(); err != nil {
		d.t.Fatalf("make a disk for a host: %v\n%s", err, out)
	}
	d.mountImage()
	d.created = true
}

// unmount removes the disk, if there is one, at the end of the test.
func (d *Disk) unmount() {
	if !d.created {
		return
	}
	if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
		d.t.Errorf("unmount the disk of a host: %v", err)
	}
}

// mountImage mounts the disk of a host with Options.Lossy. Its journal is written only when a
// program syncs, so a copy of the image between two syncs is what a power cut leaves.
func (d *Disk) mountImage() {
	d.t.Helper()
	mount := exec.Command("mount", "-o", "loop,commit=3600", d.image, d.dir)
	if out, err := mount.CombinedOutput(); err != nil {
		d.t.Fatalf("mount the disk of a host: %v\n%s", err, out)
	}
}

// copySynced copies the disk without what the kernel has yet to write. Everything on the host is
// stopped.
func (d *Disk) copySynced() {
	d.t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", d.image, d.image+".cut").CombinedOutput(); err != nil {
		d.t.Fatalf("copy the disk of a host: %v\n%s", err, out)
	}
}

// dropUnsynced replaces the disk with the copy. Everything on the host is dead.
func (d *Disk) dropUnsynced() {
	d.t.Helper()
	if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
		d.t.Fatalf("unmount the disk of a host: %v", err)
	}
	if err := os.Rename(d.image+".cut", d.image); err != nil {
		d.t.Fatal(err)
	}
	d.mountImage()
}

// Fill fills the host's small disk completely.
func (d *Disk) Fill() {
	d.t.Helper()
	if d.size == "" {
		d.t.Fatal("fill the disk: this harness has no small disks")
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
}

// Free undoes Fill.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// Used describes how full the host's small disk is, for a report.
func (d *Disk) Used() string {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d of %d kB", (int64(st.Blocks)-int64(st.Bfree))*st.Bsize>>10, int64(st.Blocks)*st.Bsize>>10)
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
