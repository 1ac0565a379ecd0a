// Package private protects the folders and unix sockets of a node from other users of the machine.
package private

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrExposed means that other users may read or change a folder, and that making it private would
// take it away from them.
var ErrExposed = errors.New("is open to other users")

// Folder makes a folder that only this user can access, or restricts an existing one, and reports
// whether it changed its mode. It does not change a folder that others can access and that contains
// files of which none matches one of the patterns, because that may be a home or a shared folder.
// The error then wraps ErrExposed, as for a folder of another user.
func Folder(dir string, own ...string) (changed bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if !isOwnFile(info) {
		return false, fmt.Errorf("the folder %s %w: it belongs to user %d, and this is user %d", dir, ErrExposed,
			owner(info), os.Geteuid())
	}
	if info.Mode().Perm()&0o077 == 0 {
		return false, nil
	}
	if info.Mode()&fs.ModeSticky != 0 || !isEmptyOrUsed(dir, own) {
		return false, fmt.Errorf("the folder %s %w (mode %04o), and contains other files as well", dir,
			ErrExposed, info.Mode().Perm())
	}
	return true, os.Chmod(dir, 0o700)
}

// Unshared removes other users' permission to write to a folder of this user, and reports whether
// it changed the mode: they could replace a program that is run from there. The error wraps
// ErrExposed for a folder of another user.
func Unshared(dir string) (changed bool, err error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !isOwnFile(info) {
		return false, fmt.Errorf("the folder %s %w: it belongs to user %d, and this is user %d", dir, ErrExposed,
			owner(info), os.Geteuid())
	}
	if info.Mode().Perm()&0o022 == 0 {
		return false, nil
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return false, fmt.Errorf("the folder %s %w (mode %04o) on purpose", dir, ErrExposed, info.Mode().Perm())
	}
	return true, os.Chmod(dir, info.Mode().Perm()&^0o022)
}

// isEmptyOrUsed reports whether a folder is empty, or is one that a node has used: it has one of
// the files.
func isEmptyOrUsed(dir string, own []string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && (len(entries) == 0 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return slices.ContainsFunc(own, func(pattern string) bool {
			ok, _ := filepath.Match(pattern, e.Name()) // the patterns are the caller's
			return ok
		})
	}))
}

func owner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

func isOwnFile(info fs.FileInfo) bool { return owner(info) == os.Geteuid() }

// socketLimit is the longest path that fits into a socket address on Linux (unix(7)), with room for
// the final zero.
const socketLimit = 107

// WithSocketPath calls fn with a path of the socket in a folder that fits into a socket address,
// however long the folder's own path is. The path is valid until fn returns.
func WithSocketPath(dir, name string, fn func(path string) error) error {
	path := filepath.Join(dir, name)
	if len(path) <= socketLimit {
		return fn(path)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name))
}

// Peer returns the user at the other end of a unix socket: the one who connected, or who listens.
func Peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, fmt.Errorf("ask who is at the socket: %w", err)
	}
	return int(cred.Uid), nil
}

// IsOwn reports whether the other end belongs to the user of this process.
func IsOwn(c *net.UnixConn) bool {
	uid, err := Peer(c)
	return err == nil && uid == os.Geteuid()
}

// IsTrusted reports whether the other end belongs to the user of this process, or to root, who
// could take that user's place.
func IsTrusted(c *net.UnixConn) bool {
	uid, err := Peer(c)
	return err == nil && (uid == os.Geteuid() || uid == 0)
}

// Listener accepts connections of this user and of root only, whatever the mode of the socket's
// file and its folder. Refused is called with the user of each refused connection; it may be nil.
type Listener struct {
	*net.UnixListener
	Refused func(uid int)
}

// Accept implements net.Listener.
func (l Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if IsTrusted(c) {
			return c, nil
		}
		if uid, err := Peer(c); err == nil && l.Refused != nil {
			l.Refused(uid)
		}
		c.Close()
	}
}

// Seal removes other users' permissions on a socket's file. At bind its mode depends on the umask,
// which belongs to the whole process and is not changed here; until Seal, Listener refuses other
// users.
func Seal(dir, name string) error { return os.Chmod(filepath.Join(dir, name), 0o600) }
