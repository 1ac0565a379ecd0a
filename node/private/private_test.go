package private

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFolder(t *testing.T) {
	const none = fs.FileMode(0)
	tests := []struct {
		name   string
		mode   fs.FileMode // before; none: it is not there
		files  []string
		uid    int
		mended bool
		open   bool // ErrExposed
		after  fs.FileMode
	}{
		{name: "new", after: 0o700},
		{name: "private", mode: 0o700, files: []string{"x"}, after: 0o700},
		{name: "empty, for the group", mode: 0o775, mended: true, after: 0o700},
		{name: "empty, for all to read", mode: 0o755, mended: true, after: 0o700},
		{name: "a node's", mode: 0o770, files: []string{"lock", "token", "history.db"}, mended: true, after: 0o700},
		{name: "a home", mode: 0o755, files: []string{".bashrc"}, open: true, after: 0o755},
		{name: "for everybody", mode: 0o777 | fs.ModeSticky, open: true, after: 0o777},
		{name: "for everybody, and a node was there", mode: 0o777 | fs.ModeSticky, files: []string{"lock"},
			open: true, after: 0o777},
		{name: "another user's", mode: 0o777, uid: 4242, open: true, after: 0o777},
		{name: "another user's, private", mode: 0o700, uid: 4242, open: true, after: 0o700},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if tt.mode != none {
				if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, tt.mode)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.uid != 0 {
				if os.Geteuid() != 0 {
					t.Skip("only root can give a folder away")
				}
				if err := os.Chown(dir, tt.uid, tt.uid); err != nil {
					t.Fatal(err)
				}
			}
			mended, err := Folder(dir, "lock", "token")
			if mended != tt.mended || errors.Is(err, ErrExposed) != tt.open || !tt.open && err != nil {
				t.Errorf("got %v, %v, want %v, exposed %v", mended, err, tt.mended, tt.open)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != tt.after {
				t.Errorf("got mode %v, %v, want %v", info.Mode(), err, tt.after)
			}
		})
	}
}

func TestUnshared(t *testing.T) {
	for before, after := range map[fs.FileMode]fs.FileMode{0o700: 0o700, 0o755: 0o755, 0o775: 0o755,
		0o777: 0o755, 0o720: 0o700} {
		dir := t.TempDir()
		if err := os.Chmod(dir, before); err != nil {
			t.Fatal(err)
		}
		mended, err := Unshared(dir)
		info, e := os.Stat(dir)
		if err != nil || e != nil || mended != (before != after) || info.Mode().Perm() != after {
			t.Errorf("%v: got %v, %v, mode %v, want %v", before, mended, err, info.Mode().Perm(), after)
		}
	}
}

// TestListenerRefusesOtherUsers connects as another user to a socket that everybody may write to.
func TestListenerRefusesOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to be another user")
	}
	dir, err := os.MkdirTemp("", "private") // not t.TempDir, whose parents are root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	refused := make(chan int, 1)
	go func() {
		for {
			c, err := Listener{l, func(uid int) { refused <- uid }}.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("welcome"))
			c.Close()
		}
	}()
	if got := callAs(t, path, 4242); strings.Contains(got, "welcome") {
		t.Errorf("another user was let in: %s", got)
	}
	if got := <-refused; got != 4242 {
		t.Errorf("refused user %d, want 4242", got)
	}
	if got := callAs(t, path, 0); got != "welcome" {
		t.Errorf("the own user was not let in: %q", got)
	}
}

// callAs connects from a thread that is another user's, and gives what it is told.
func callAs(t *testing.T, path string, uid int) string {
	t.Helper()
	said := make(chan string)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		defer close(said)
		same := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
			said <- errno.Error()
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			said <- err.Error()
			return
		}
		b := make([]byte, 20)
		n, _ := unix.Read(fd, b) // it may be cut off
		said <- string(b[:max(n, 0)])
	}()
	return <-said
}

func TestSocketPathIsShort(t *testing.T) {
	for _, long := range []string{"short", strings.Repeat("long/", 40)} {
		dir := filepath.Join(t.TempDir(), long)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		var l net.Listener
		listen := func(path string) (err error) {
			l, err = net.Listen("unix", path)
			return err
		}
		if err := WithSocketPath(dir, "socket", listen); err != nil {
			t.Errorf("listen in %q: %v", long, err)
			continue
		}
		defer l.Close()
		dial := func(path string) error {
			c, err := net.Dial("unix", path)
			if err == nil {
				c.Close()
			}
			return err
		}
		if err := WithSocketPath(dir, "socket", dial); err != nil {
			t.Errorf("dial in %q: %v", long, err)
		}
	}
	if err := WithSocketPath(filepath.Join(t.TempDir(), strings.Repeat("none/", 40)),
		"socket", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v without a folder, want fs.ErrNotExist", err)
	}
}
