package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// fill leaves no room on the disk of dir, and gives the file to remove.
func fill(t *testing.T, dir string) string {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range []int{1 << 16, 1 << 12, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		t.Fatal(err)
	}
	return ballast
}

// runLine runs one command line and returns its exit code and what it wrote to stderr.
func runLine(t *testing.T, line string) (code int, stderr string) {
	t.Helper()
	var complaints bytes.Buffer
	code = run(context.Background(), &interrupts{}, words(line), &bytes.Buffer{}, &complaints)
	return code, complaints.String()
}

func TestFullDiskForState(t *testing.T) {
	disk := gridtest.SmallDisk(t, "16m", unix.MNT_DETACH)
	t.Chdir(t.TempDir())
	t.Setenv("XDG_STATE_HOME", filepath.Join(disk, "state"))
	ballast := fill(t, disk)
	code, got := runLine(t, "sweep --set a=1 -- true")
	if code != exitFailed || !strings.Contains(got, "no space left on device") || !strings.Contains(got, "  try: ") {
		t.Errorf("on a full disk: got exit code %d and %q", code, got)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if code, got := runLine(t, "sweep --quiet --set a=1 -- true"); code != 0 {
		t.Errorf("with room again: got exit code %d and %q", code, got)
	}
	if code, got := runLine(t, "results true-1"); code != 0 {
		t.Errorf("the first sweep is no longer there: got exit code %d and %q", code, got)
	}
}

func TestFullDiskForBundle(t *testing.T) {
	disk := gridtest.SmallDisk(t, "1m", unix.MNT_DETACH)
	fill(t, disk)
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, dir, map[string]string{"prog.py": strings.Repeat("# a line of a program\n", 10)})
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	t.Setenv("TMPDIR", disk)
	before := listing(t, disk)
	code, got := runLine(t, "sweep --set a=1 -- python3 prog.py")
	want := "mlfnode: the project can't be packed: no space left on device\n  try: make room in " + disk +
		", or set TMPDIR to another folder\n"
	if code != exitFailed || got != want {
		t.Errorf("got exit code %d and %q, want %q", code, got, want)
	}
	if after := listing(t, disk); len(after) != len(before) {
		t.Errorf("got %v left behind", after)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("a state folder was made")
	}
}

func TestFullDiskForResults(t *testing.T) {
	disk := gridtest.SmallDisk(t, "1m", unix.MNT_DETACH)
	fill(t, disk)
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	write(t, dir, map[string]string{"prog.sh": `echo x > "$MLF_OUT/file"`})
	before := listing(t, disk)
	code, got := runLine(t, "sweep --quiet --csv "+disk+"/out.csv --set a=1 -- sh prog.sh")
	want := "mlfnode: the table can't be written to " + disk + "/out.csv: no space left on device\n" +
		"  try: the sweep is finished; write the table elsewhere with: mlfnode results prog-1 --csv=FILE\n"
	if code != exitFailed || got != want {
		t.Errorf("table: got exit code %d and %q, want %q", code, got, want)
	}
	code, got = runLine(t, "artifacts prog-1 -o "+disk)
	want = "mlfnode: " + disk +
		"/0/file can't be written: no space left on device\n  try: choose a folder on another disk with -o\n"
	if code != exitFailed || got != want {
		t.Errorf("artifacts: got exit code %d and %q, want %q", code, got, want)
	}
	if after := listing(t, disk); len(after) > len(before)+1 { // the folder 0
		t.Errorf("got %v left behind", after)
	}
	if code, got := runLine(t, "results prog-1 --csv=out.csv"); code != 0 {
		t.Errorf("the results are lost: got exit code %d and %q", code, got)
	}
}

// TestFullDiskForRestore restores a backup to a disk that has no room for it, and says whose room
// it takes.
func TestFullDiskForRestore(t *testing.T) {
	c, old, _, _ := newMovingCluster(t)
	file := filepath.Join(t.TempDir(), "backup")
	c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
	state := filepath.Join(gridtest.SmallDisk(t, "512k", unix.MNT_DETACH), "state")
	code, got := runLine(t, "restore "+file+" --state-dir "+state)
	if code != exitFailed ||
		!strings.Contains(got, "nothing was restored: the disk of the state folder "+state+
			" is full\n  try: make room") {
		t.Errorf("got exit code %d and %q", code, got)
	}
	if left, err := filepath.Glob(filepath.Join(state, "*")); err != nil || len(left) > 1 {
		t.Errorf("got %q left, %v", left, err)
	}
}
