package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node/durable"
	"mlfnode/node/filelock"
	"mlfnode/node/private"
)

// ErrInUse is returned by Open when another process has the state folder.
var ErrInUse = errors.New("the state folder is in use by another mlfnode")

// lockName is the file in the state folder that the process that has the folder locks. It names the
// machine, since on a shared disk other machines cannot see the process.
const lockName = "lock"

// MakeState creates the state folder for this user alone. It takes away the rights of others to an
// existing one, and reports whether they had any. Whoever can write to it, or to the socket in it,
// can run programs as this user; whoever can read it has the keys of the cluster.
func MakeState(dir string) (changed bool, err error) {
	if changed, err = private.Folder(dir, lockName, "token", "trust", "examples", socketName,
		durable.PartPrefix+"*"); err != nil {
		return false, fmt.Errorf("make state folder: %w", err)
	}
	return changed, nil
}

// lockState locks the state folder for this process, unless a restore to it was interrupted. The
// lock ends with the process, however that ends.
func lockState(dir string) (*os.File, error) {
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	if err := CheckRestored(dir); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// lockFolder locks the state folder, whatever is in it.
func lockFolder(dir string) (*os.File, error) {
	if _, err := MakeState(dir); err != nil {
		return nil, err
	}
	f, err := filelock.TryLock(filepath.Join(dir, lockName))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if host, err := os.Hostname(); err == nil && f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(host+"\n"), 0) // on a full disk the machine stays unknown
	}
	return f, nil
}

// lastHost returns the machine that locked the folder last, "" if it is this one or unknown.
func lastHost(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return ""
	}
	host, _, _ := strings.Cut(string(b), "\n")
	if own, err := os.Hostname(); err != nil || host == own {
		return ""
	}
	return host
}
