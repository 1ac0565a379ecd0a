package doctor

import (
	"os"
	"testing"
)

const mounts = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:31 / /home rw,relatime shared:9 master:3 - nfs4 server:/export/home rw,vers=4.2,local_lock=none
31 22 0:32 / /old rw,relatime - nfs server:/old rw,vers=3,nolock,local_lock=all
32 30 0:33 / /home/ada/remote rw,nosuid - fuse.sshfs ada@gpu1: rw,user_id=1000
33 22 0:34 / /my\040disk rw - gpfs gpfs0 rw
34 22 0:35 / /mnt/win rw - cifs //server/share rw,vers=3.1.1,nobrl
35 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
36 22 0:36 / /covered rw - nfs4 server:/covered rw
37 22 8:3 / /covered rw - btrfs /dev/sdc1 rw
38 22 0:37 /
`

// TestFileSystem checks that the file system of the state folder is named, and whether other
// machines see its locks.
func TestFileSystem(t *testing.T) {
	for _, c := range []struct {
		dir   string
		state State
		cause string
	}{
		{"/var/lib/mlfnode", OK, "is on ext4"}, {"/", OK, "is on ext4"}, {"/home/local/state", OK, "is on xfs"},
		{"/homes", OK, "is on ext4"},
		{"/covered/state", OK, "is on btrfs"},
		{"/home/ada/mlfnode", Warn, "is on nfs4 (server:/export/home)"}, {"/home", Warn, "less safe"},
		{"/my disk/x", Warn, "is on gpfs (gpfs0)"},
		{"/old/x", Bad, "hold on this machine alone (local_lock=all)"}, {"/home/ada/remote/x", Bad, "it has no locks"},
		{"/mnt/win/x", Bad, "(nobrl)"},
	} {
		want(t, judgeFileSystem(c.dir, mountOf(mounts, c.dir)), c.state, c.cause,
			map[bool]string{true: "", false: "--state-dir"}[c.state == OK])
	}
	if f := checkFileSystem(t.TempDir()); f.Cause == "" || f.State == "" {
		t.Errorf("of this machine: got %+v", f)
	}
	here, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if m := mountOf(string(here), "/proc/self"); m.kind != "proc" {
		t.Errorf("of /proc: got %+v", m)
	}
}
