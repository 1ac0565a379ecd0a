// Package private keeps what belongs to one user from the others of a machine: folders with a
// node's state, and unix sockets.
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

// ErrExposed is a folder that others may change or read, and that can't be made private without
// taking it away from them.
var ErrExposed = errors.New("is open to other users")

// Folder makes a folder for this user alone, or makes the one that is there so, and reports whether
// that changed it. A folder with rights for others that holds files, and none that fits one of the
// patterns, is not touched, because it may be a home or a shared folder: then, and when it belongs
// to another user, the error wraps ErrExposed.
func Folder(dir string, own ...string) (changed bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	if !ours(info) {
		return false, fmt.Errorf("the folder %s %w: it belongs to user %d, and this is user %d", dir, ErrExposed, owner(info), os.Geteuid())
	}
	if info.Mode().Perm()&0o077 == 0 {
		return false, nil
	}
	if info.Mode()&fs.ModeSticky != 0 || !holdsOnly(dir, own) {
		return false, fmt.Errorf("the folder %s %w (mode %04o), and contains other files as well", dir, ErrExposed, info.Mode().Perm())
	}
	return true, os.Chmod(dir, 0o700)
}

// Unshared takes the right to write to a folder of this user away from others, and reports whether
// that changed it: they could put another program in the place of one that is run from there. The
// error wraps ErrExposed for a folder of somebody else.
func Unshared(dir string) (changed bool, err error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !ours(info) {
		return false, fmt.Errorf("the folder %s %w: it belongs to user %d, and this is user %d", dir, ErrExposed, owner(info), os.Geteuid())
	}
	if info.Mode().Perm()&0o022 == 0 {
		return false, nil
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return false, fmt.Errorf("the folder %s %w (mode %04o) on purpose", dir, ErrExposed, info.Mode().Perm())
	}
	return true, os.Chmod(dir, info.Mode().Perm()&^0o022)
}

// holdsOnly reports whether a folder is empty, or is one that a node has used: it has one of the
// files.
func holdsOnly(dir string, own []string) bool {
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

func ours(info fs.FileInfo) bool { return owner(info) == os.Geteuid() }

// Peer gives the user at the other end of a unix socket: who connected, or who began to listen.
func Peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
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

// Listener lets nobody in but this user and root, whatever the rights of the socket's file: those
// that a folder or an umask give count for nothing. Refused is told who was not let in; it may be
// nil.
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

// Seal takes all rights to a socket's file away from others. Its mode at bind is what the umask
// leaves, which belongs to the whole process and is not touched here: until then it is Listener
// that keeps others out.
func Seal(dir, name string) error { return os.Chmod(filepath.Join(dir, name), 0o600) }
