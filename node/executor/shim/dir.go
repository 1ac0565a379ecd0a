package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/durable"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
	"mlfnode/node/private"
	"mlfnode/node/processid"
)

// shimDir is the folder of one shim:
//
//	settings.json   what the agent tells it, written before it starts
//	process.json    the identity of its process, written by the shim
//	socket          0600
//	log             its log
//	strays.json     processes that hide, without cgroups
//
// The shim removes the folder at its end. An agent removes that of a shim that died.
type shimDir struct {
	path string
	id   int
}

func newShimDir(dir string, id int) shimDir { return shimDir{filepath.Join(dir, strconv.Itoa(id)), id} }

// shimDirsIn lists the folders of shims, the oldest first.
func shimDirsIn(dir string) ([]shimDir, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list shims: %w", err)
	}
	var all []shimDir
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil && id > 0 && e.IsDir() {
			all = append(all, newShimDir(dir, id))
		}
	}
	slices.SortFunc(all, func(a, b shimDir) int { return a.id - b.id })
	return all, nil
}

// token returns the token of the shim's executor.
func (d shimDir) token(token string) string { return token + "-" + strconv.Itoa(d.id) }

// settings is what an agent tells its shim.
type settings struct {
	V            int           `json:"v"`
	Token        string        `json:"token"` // of the state folder
	AgentTimeout time.Duration `json:"patience"`
	Cgroups      string        `json:"cgroups,omitempty"`

	Containers *docker.Options `json:"containers,omitempty"` // nil if it runs none
}

// processRecord identifies the process of a shim, so that a later process with the same id can't be
// mistaken for it.
type processRecord struct {
	V int `json:"v"`
	processid.ID
	Cgroups string `json:"cgroups"` // what cgroups.Own returned there
}

// kill kills the process, and never another one that has its id by now.
func (p processRecord) kill() { _ = p.Signal(unix.SIGKILL) } // it may be gone

func (d shimDir) save(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s of shim %d: %w", name, d.id, err)
	}
	return durable.ReplaceFile(filepath.Join(d.path, name), append(b, '\n'), 0o600)
}

func (d shimDir) load(name string, v any) error {
	b, err := os.ReadFile(filepath.Join(d.path, name))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s of shim %d: %w", name, d.id, err)
	}
	return nil
}

const (
	settingsFile = "settings.json"
	processFile  = "process.json"
	socketFile   = "socket"
	logFile      = "log"
	straysFile   = "strays.json"
)

func (d shimDir) strays() string { return filepath.Join(d.path, straysFile) }

// Reap kills every process that an agent with this token and its shims in the folders have left
// behind. All of them must be dead. See process.Reap.
func Reap(ctx context.Context, folders []string, token string, log *slog.Logger) error {
	var left []process.DeadAgent
	for _, dir := range folders {
		if info, err := os.Lstat(dir); err == nil && info.Mode()&os.ModeSymlink != 0 {
			continue // the former name of another one of the folders
		}
		dirs, err := shimDirsIn(dir)
		if err != nil {
			return err
		}
		for _, p := range dirs {
			left = append(left, process.DeadAgent{Token: p.token(token), Strays: p.strays()})
		}
	}
	for _, dead := range append(left, process.DeadAgent{Token: token}) {
		if _, err := process.Reap(ctx, dead, log); err != nil {
			return err
		}
	}
	return nil
}

// listen opens the shim's socket, for this user only.
func (d shimDir) listen() (l *net.UnixListener, err error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	err = private.WithSocketPath(d.path, socketFile, func(path string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the shim's socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path may be one through /proc; the folder is removed as a whole
	return l, nil
}

// dial connects to the shim.
func (d shimDir) dial() (c *net.UnixConn, err error) {
	err = private.WithSocketPath(d.path, socketFile, func(path string) error {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return c, err
}
