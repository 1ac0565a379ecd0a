package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// What a host should have.
const (
	leastFree    = 1 << 30 // bytes on the state folder's disk: below, trials soon wait
	lowFree      = 10 << 30
	leastInodes  = 10_000
	lowInodes    = 100_000
	slowSync     = 50 * time.Millisecond // results are synced before they count
	worstSync    = 500 * time.Millisecond
	syncTries    = 5
	lowMemory    = 512 << 20
	workerFiles  = 4096 // open files
	masterFiles  = 65536
	secretsHold  = "it holds keys and tokens that only the node may read"
	ownedByOther = "it belongs to another user, with the number %d"
)

// permissions looks at who can read the state folder and its secrets.
func (h Host) permissions() []Finding {
	info, err := os.Stat(h.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{h.canMake()}
	case err != nil:
		return []Finding{bad("state folder", "it can't be looked at: "+err.Error(), "ls -ld "+h.StateDir)}
	}
	found := []Finding{private("state folder", h.StateDir, info, 0o700)}
	err = filepath.WalkDir(filepath.Join(h.StateDir, "trust"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".crt") { // certificates are public
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if f := private("secret "+d.Name(), path, info, 0o600); f.State != OK {
			found = append(found, f)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		found = append(found, bad("secrets", "they can't be looked at: "+err.Error(), "ls -lR "+filepath.Join(h.StateDir, "trust")))
	}
	return found
}

// canMake looks whether a state folder that is missing can be made.
func (h Host) canMake() Finding {
	parent := existing(h.StateDir)
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return bad("state folder", fmt.Sprintf("%s is missing and can't be made in %s: %v", h.StateDir, parent, err),
			fmt.Sprintf("sudo install -d -m 700 -o %d %s, or choose another with --state-dir", os.Geteuid(), h.StateDir))
	}
	return fine("state folder", h.StateDir+" will be made")
}

// existing gives the nearest folder on the way up that there is.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); (err == nil && info.IsDir()) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func private(name, path string, info fs.FileInfo, mode fs.FileMode) Finding {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return bad(name, fmt.Sprintf("%s: "+ownedByOther, path, s.Uid), fmt.Sprintf("run mlfnode as that user, or: sudo chown -R %d %s", os.Geteuid(), path))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return bad(name, fmt.Sprintf("%s has mode %04o, and %s", path, info.Mode().Perm(), secretsHold), fmt.Sprintf("chmod %04o %s", mode, path))
	}
	return fine(name, path)
}

// disk looks at the room on the state folder's disk and how fast it keeps its promises.
func (h Host) disk() []Finding {
	dir := existing(h.StateDir)
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return []Finding{bad("disk", "its room can't be found out: "+err.Error(), "df -h "+dir)}
	}
	found := []Finding{fileSystem(dir), judgeRoom(dir, s.Bavail*uint64(s.Bsize)), judgeInodes(dir, s.Files, s.Ffree)}
	took, err := syncTime(dir)
	if err != nil {
		return append(found, bad("disk speed", "a file can't be written and synced: "+err.Error(), "choose another folder with --state-dir"))
	}
	return append(found, judgeSync(dir, took))
}

func judgeRoom(dir string, free uint64) Finding {
	cause := fmt.Sprintf("%s free for %s", humanize.IBytes(free), dir)
	cure := "make room, or keep state on another disk with --state-dir"
	switch {
	case free < leastFree:
		return bad("disk room", cause, cure)
	case free < lowFree:
		return warn("disk room", cause, cure)
	}
	return fine("disk room", cause)
}

// judgeInodes knows that some file systems have no fixed number of inodes, and say 0.
func judgeInodes(dir string, all, free uint64) Finding {
	cause := fmt.Sprintf("%d files more fit into %s", free, dir)
	cure := "remove folders with very many small files, or keep state on another disk with --state-dir"
	switch {
	case all == 0:
		return fine("disk inodes", "the file system has no limit of files")
	case free < leastInodes:
		return bad("disk inodes", cause, cure)
	case free < lowInodes:
		return warn("disk inodes", cause, cure)
	}
	return fine("disk inodes", cause)
}

// syncTime measures how long a small write takes until it is on the disk, the median of some.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range syncTries {
		began := time.Now()
		if _, err := f.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func judgeSync(dir string, took time.Duration) Finding {
	cause := fmt.Sprintf("a synced write to %s takes %v", dir, took.Round(10*time.Microsecond))
	cure := "every result waits for it; keep state on a local solid-state disk with --state-dir, not on a network file system"
	switch {
	case took > worstSync:
		return bad("disk speed", cause, cure)
	case took > slowSync:
		return warn("disk speed", cause, cure)
	}
	return fine("disk speed", cause)
}

func (h Host) memory() Finding {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return warn("memory", "it can't be found out: "+err.Error(), "mount /proc")
	}
	return judgeMemory(string(b))
}

// judgeMemory reads the line `MemAvailable:  1234 kB` (proc_meminfo(5)).
func judgeMemory(meminfo string) Finding {
	var kib uint64
	for line := range strings.Lines(meminfo) {
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			break
		}
	}
	cause := humanize.IBytes(kib<<10) + " available"
	if kib<<10 < lowMemory {
		return warn("memory", cause, "end programs that need much (ps -eo rss,comm --sort -rss | head), or trials will be killed for want of it")
	}
	return fine("memory", cause)
}

func (h Host) files() Finding {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return warn("open files", "their limit can't be found out: "+err.Error(), "ulimit -Hn")
	}
	return judgeFiles(r.Max, h.Master)
}

func judgeFiles(limit uint64, master bool) Finding {
	least := uint64(workerFiles)
	if master {
		least = masterFiles
	}
	if limit < least {
		return warn("open files", fmt.Sprintf("at most %d, and %d may be needed", limit, least),
			"mlfnode service install, whose unit has a limit of its own; by hand: ulimit -Hn "+fmt.Sprint(least)+" as root")
	}
	if limit > 1<<40 {
		return fine("open files", "no limit")
	}
	return fine("open files", fmt.Sprintf("at most %d", limit))
}

func (h Host) limits() Finding {
	if h.Limits == "" {
		return warn("cgroups", "no limit of memory is enforced, so a trial may take that of others",
			"have systemd run the node (mlfnode service install --user; root gives one to a user with --run-as USER), on a kernel with the memory controller (cat /proc/cgroups)")
	}
	return fine("cgroups", "enforced: "+h.Limits)
}

func judgeService(s Service) Finding {
	switch {
	case !s.Systemd:
		return warn("service", "this host is not run by systemd, so nothing restarts the node", "mlfnode service install says what to do instead")
	case !s.Installed:
		return warn("service", "the node is not a service, so it does not start again after a reboot", "mlfnode service install")
	case s.User && !s.Linger:
		return warn("service", "the node is a service of a user who does not linger, so it ends at logout", "sudo loginctl enable-linger $USER")
	case !s.Active:
		return bad("service", "the service is installed and not active", "mlfnode service status, and: journalctl -u mlfnode -n 50")
	}
	return fine("service", "active")
}
