package hosts

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// logs are files that OpenSSH and sudo write at each login.
var logs = []string{"/run/sshd", "/run/sudo", "/run/utmp", "/var/lib/sudo", "/var/log"}

// Files are the files on a host that somebody there may create, change or remove.
type Files struct {
	host     *Host
	recorded map[string]string // fingerprints by path, when Snapshot was called
}

// Snapshot records the current state of the host's files, for Changes. SSHServer.Install also takes
// a snapshot.
func (f *Files) Snapshot() {
	f.host.harness.t.Helper()
	f.recorded = f.fingerprints()
}

// Changes lists what differs from the Snapshot, one line each: "made PATH", "changed PATH" or
// "removed PATH". It looks at the homes and all system folders, without the paths in except and
// everything below them.
func (f *Files) Changes(except ...string) []string {
	f.host.harness.t.Helper()
	now := f.fingerprints()
	paths := maps.Clone(now)
	maps.Copy(paths, f.recorded)
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		before, was := f.recorded[path]
		after, is := now[path]
		switch {
		case slices.ContainsFunc(except, func(dir string) bool { return isUnder(path, dir) }), before == after:
		case !is || after == gone:
			lines = append(lines, "removed "+path)
		case was || f.isSystemFile(path):
			lines = append(lines, "changed "+path)
		default:
			lines = append(lines, "made "+path)
		}
	}
	return lines
}

// isSystemFile reports whether a file of the host comes from the machine that the test runs on.
func (f *Files) isSystemFile(path string) bool {
	for _, dir := range []string{"/tmp", "/dev/shm", "/run", f.host.harness.Dir} {
		if isUnder(path, dir) {
			return false
		}
	}
	_, err := os.Lstat(path)
	return err == nil
}

func isUnder(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// fingerprints returns a fingerprint of each file that somebody on the host may have created,
// changed or removed.
func (f *Files) fingerprints() map[string]string {
	f.host.harness.t.Helper()
	upper := filepath.Join(f.host.etc(), "upper")
	found := map[string]string{}
	for _, dir := range []string{"/tmp", "/dev/shm", "/run", filepath.Join(f.host.Home, "home")} {
		f.walk(dir, "", found)
	}
	f.walk(upper, upper, found)
	return found
}

// walk adds the content of a folder of the host. Names are without the prefix.
func (f *Files) walk(dir, prefix string, found map[string]string) {
	f.host.harness.t.Helper()
	root := fmt.Sprintf("/proc/%d/root", f.host.Processes.first())
	err := filepath.WalkDir(root+dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root+prefix)
		switch {
		case errors.Is(err, fs.ErrNotExist), path == root+dir: // it has just been removed
			return nil
		case err != nil:
			return err
		case slices.Contains(logs, name), prefix == "" && name == f.host.harness.Dir,
			filepath.Dir(name) == "/" && name[1] == '.': // workdir
			if d.IsDir() {
				return fs.SkipDir
			}
		case prefix == "" || !d.IsDir() || !f.isSystemFile(name):
			// overlayfs has its own copy of each folder that contains a change
			found[name] = fingerprint(path, d)
		}
		return nil
	})
	if err != nil {
		f.host.harness.t.Fatalf("%s: look at its files: %v", f.host.Name, err)
	}
}

// gone is the fingerprint of a file of the machine that was removed on the host.
const gone = "gone"

// fingerprint is what distinguishes two versions of a file.
func fingerprint(path string, d fs.DirEntry) string {
	info, err := d.Info()
	if err != nil {
		return err.Error()
	}
	text := info.Mode().String()
	stat, _ := info.Sys().(*syscall.Stat_t) // always succeeds on Linux
	switch {
	case info.Mode()&fs.ModeCharDevice != 0 && stat.Rdev == 0: // what overlayfs puts in the place of a removed file
		return gone
	case info.Mode()&fs.ModeSymlink != 0:
		target, _ := os.Readlink(path) // it may be gone
		return text + target
	case info.Mode().IsRegular():
		content, _ := os.ReadFile(path) // it may be gone
		return fmt.Sprintf("%s %x", text, sha256.Sum256(content))
	}
	return text
}
