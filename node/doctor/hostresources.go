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

// What a host should have. Sizes are in bytes.
const (
	minFreeDisk    = 1 << 30 // on the state folder's disk: with less, trials soon wait
	lowFreeDisk    = 10 << 30
	minInodes      = 10_000
	lowInodes      = 100_000
	slowSync       = 50 * time.Millisecond // results are synced before they count
	unusableSync   = 500 * time.Millisecond
	syncSamples    = 5
	lowMemory      = 512 << 20
	workerMaxFiles = 4096 // open files
	masterMaxFiles = 65536
	secretsHold    = "it holds keys and tokens that only the node may read"
	ownedByOther   = "it belongs to another user, with the number %d"
)

// checkStateFolder checks who can read the state folder and its secrets.
func checkStateFolder(stateDir string) []Finding {
	info, err := os.Stat(stateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := existingParent(stateDir)
		if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
			return []Finding{bad("state folder",
				fmt.Sprintf("%s is missing and can't be made in %s: %v", stateDir, parent, err),
				fmt.Sprintf("sudo install -d -m 700 -o %d %s, or choose another with --state-dir",
					os.Geteuid(), stateDir))}
		}
		return []Finding{fine("state folder", stateDir+" will be made")}
	case err != nil:
		return []Finding{bad("state folder", "it can't be looked at: "+err.Error(), "ls -ld "+stateDir)}
	}
	found := []Finding{private("state folder", stateDir, info, 0o700)}
	err = filepath.WalkDir(filepath.Join(stateDir, "trust"), func(path string, d fs.DirEntry, err error) error {
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
		found = append(found, bad("secrets", "they can't be looked at: "+err.Error(),
			"ls -lR "+filepath.Join(stateDir, "trust")))
	}
	return found
}

// existingParent returns dir, or else its nearest parent that exists.
func existingParent(dir string) string {
	for {
		if info, err := os.Stat(dir); (err == nil && info.IsDir()) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func private(name, path string, info fs.FileInfo, mode fs.FileMode) Finding {
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return bad(name, fmt.Sprintf("%s: "+ownedByOther, path, s.Uid),
			fmt.Sprintf("run mlfnode as that user, or: sudo chown -R %d %s", os.Geteuid(), path))
	}
	if info.Mode().Perm()&0o077 != 0 {
		return bad(name, fmt.Sprintf("%s has mode %04o, and %s", path, info.Mode().Perm(), secretsHold),
			fmt.Sprintf("chmod %04o %s", mode, path))
	}
	return fine(name, path)
}

// checkDisk checks the free space on the state folder's disk and how fast the disk syncs.
func checkDisk(stateDir string) []Finding {
	dir := existingParent(stateDir)
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return []Finding{bad("disk", "its room can't be found out: "+err.Error(), "df -h "+dir)}
	}
	found := []Finding{checkFileSystem(dir), judgeRoom(dir, s.Bavail*uint64(s.Bsize)),
		judgeInodes(dir, s.Files, s.Ffree)}
	took, err := syncTime(dir)
	if err != nil {
		return append(found, bad("disk speed", "a file can't be written and synced: "+err.Error(),
			"choose another folder with --state-dir"))
	}
	return append(found, judgeSync(dir, took))
}

func judgeRoom(dir string, free uint64) Finding {
	cause := fmt.Sprintf("%s free for %s", humanize.IBytes(free), dir)
	cure := "make room, or keep state on another disk with --state-dir"
	switch {
	case free < minFreeDisk:
		return bad("disk room", cause, cure)
	case free < lowFreeDisk:
		return warn("disk room", cause, cure)
	}
	return fine("disk room", cause)
}

// judgeInodes accepts file systems without a fixed number of inodes, which report 0.
func judgeInodes(dir string, all, free uint64) Finding {
	cause := fmt.Sprintf("%d files more fit into %s", free, dir)
	cure := "remove folders with very many small files, or keep state on another disk with --state-dir"
	switch {
	case all == 0:
		return fine("disk inodes", "the file system has no limit of files")
	case free < minInodes:
		return bad("disk inodes", cause, cure)
	case free < lowInodes:
		return warn("disk inodes", cause, cure)
	}
	return fine("disk inodes", cause)
}

// syncTime returns the median time in which a small write reaches the disk.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range syncSamples {
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
	case took > unusableSync:
		return bad("disk speed", cause, cure)
	case took > slowSync:
		return warn("disk speed", cause, cure)
	}
	return fine("disk speed", cause)
}

func checkMemory() Finding {
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
		return warn("memory", cause,
			"end programs that need much (ps -eo rss,comm --sort -rss | head), or trials will be killed for want of it")
	}
	return fine("memory", cause)
}

func checkOpenFiles(master bool) Finding {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return warn("open files", "their limit can't be found out: "+err.Error(), "ulimit -Hn")
	}
	return judgeOpenFiles(r.Max, master)
}

func judgeOpenFiles(limit uint64, master bool) Finding {
	least := uint64(workerMaxFiles)
	if master {
		least = masterMaxFiles
	}
	if limit < least {
		return warn("open files", fmt.Sprintf("at most %d, and %d may be needed", limit, least),
			"mlfnode service install, whose unit has a limit of its own; by hand: ulimit -Hn "+
				fmt.Sprint(least)+" as root")
	}
	if limit > 1<<40 {
		return fine("open files", "no limit")
	}
	return fine("open files", fmt.Sprintf("at most %d", limit))
}

func judgeLimits(limits string) Finding {
	if limits == "" {
		return warn("cgroups", "no limit of memory is enforced, so a trial may take that of others",
			"have systemd run the node (mlfnode service install --user; root gives one to a user with --run-as USER), on a kernel with the memory controller (cat /proc/cgroups)")
	}
	return fine("cgroups", "enforced: "+limits)
}

func judgeService(s Service) Finding {
	switch {
	case !s.Systemd:
		return warn("service", "this host is not run by systemd, so nothing restarts the node",
			"mlfnode service install says what to do instead")
	case !s.Installed:
		return warn("service", "the node is not a service, so it does not start again after a reboot",
			"mlfnode service install")
	case s.User && !s.Linger:
		return warn("service", "the node is a service of a user who does not linger, so it ends at logout",
			"sudo loginctl enable-linger $USER")
	case !s.Active:
		return bad("service", "the service is installed and not active",
			"mlfnode service status, and: journalctl -u mlfnode -n 50")
	}
	return fine("service", "active")
}
