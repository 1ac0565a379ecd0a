package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sharedTypes are the types of file systems that other machines may have mounted, too.
var sharedTypes = []string{
	"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "lustre", "gpfs", "beegfs", "ceph", "panfs", "wekafs", "orangefs",
	"ocfs2", "gfs2", "9p", "virtiofs",
	"vboxsf", "glusterfs", "fuse.glusterfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.juicefs", "fuse.vmhgfs-fuse",
	"fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse",
}

// The types and mount options of file systems whose locks other machines do not see (nfs(5),
// mount.cifs(8)).
var (
	locklessTypes   = []string{"fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}
	locklessOptions = []string{"nolock", "local_lock=flock", "local_lock=all", "nobrl"}
)

// mount is a mounted file system.
type mount struct {
	point   string
	kind    string // such as nfs4
	source  string // such as server:/home
	options string // of the file system itself, separated by commas
}

// checkFileSystem checks the type of the state folder's file system.
func checkFileSystem(dir string) Finding {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		path = dir
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return warn("file system", "it can't be found out: "+err.Error(), "findmnt -T "+dir)
	}
	return judgeFileSystem(dir, mountOf(string(b), path))
}

func judgeFileSystem(dir string, m mount) Finding {
	const name = "file system"
	if !slices.Contains(sharedTypes, m.kind) {
		return fine(name, dir+" is on "+m.kind)
	}
	cause := fmt.Sprintf("%s is on %s (%s), which other machines may have, too", dir, m.kind, m.source)
	cure := "keep state on a disk of this machine with --state-dir or `state:` in node.yaml"
	lock := ""
	for o := range strings.SplitSeq(m.options, ",") {
		if slices.Contains(locklessOptions, o) {
			lock = o
		}
	}
	switch {
	case lock != "":
		return bad(name, cause+"; locks there hold on this machine alone ("+lock+
			"), so that a second node in the folder would not be noticed and would destroy what the first one keeps",
			cure)
	case slices.Contains(locklessTypes, m.kind):
		return bad(name,
			cause+
				"; it has no locks, so that a second node in the folder would not be noticed and would destroy what the first one keeps",
			cure)
	}
	return warn(name, cause+"; what a node keeps there is slower and less safe than on a disk", cure)
}

// mountOf returns the file system of a path from lines such as
// `36 35 0:31 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2`
// (proc_pid_mountinfo(5)). Of file systems mounted over each other the last one counts.
func mountOf(mountinfo, path string) (found mount) {
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) < 5 || len(a) < 2 {
			continue
		}
		m := mount{point: unescape(b[4]), kind: a[0], source: unescape(a[1])}
		if len(a) > 2 {
			m.options = a[2]
		}
		below := strings.TrimSuffix(m.point, "/") + "/"
		if (path == m.point || strings.HasPrefix(path, below)) && len(m.point) >= len(found.point) {
			found = m
		}
	}
	return found
}

// unescape decodes octal escapes such as `\040`.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if n, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
