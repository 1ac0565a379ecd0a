package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
)

// Options are the settings of a Client.
type Options struct {
	Dir string // folder of the shims, below the state folder; created if it does not exist
	// FormerDir is the name that the folder had in earlier versions, beside Dir. Such a folder is
	// renamed to Dir and replaced by a link: so shims of an earlier version keep their paths, and
	// an agent of an earlier version finds all shims. Empty means none.
	FormerDir string
	Token     string // of the state folder, see process.Options
	Program   string // what to start with Command as its first argument; empty means this program
	// Wrap returns the prefix of a shim's command line, such as systemd-run --scope, which must
	// exec the shim; nil means none.
	Wrap         func() []string
	Env          []string        // the shim's environment; nil means that of this process
	AgentTimeout time.Duration   // how long a shim waits for an agent; 0 means DefaultAgentTimeout
	Cgroups      process.Cgroups // as in process.Options
	// Containers makes shims run attempts in containers, too; nil means they don't.
	Containers *docker.Options
	Logger     *slog.Logger

	own bool // Program is this program
}

// program returns what to start: this very process's program if its file is gone, as while an
// upgrade replaces it.
func (o *Options) program() string {
	if _, err := os.Stat(o.Program); o.own && errors.Is(err, os.ErrNotExist) {
		return fmt.Sprintf("/proc/%d/exe", os.Getpid())
	}
	return o.Program
}

func (o *Options) complete() error {
	if o.AgentTimeout <= 0 {
		o.AgentTimeout = DefaultAgentTimeout
	}
	if o.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Program, o.own = self, true
	}
	if o.FormerDir != "" {
		if err := o.moveFormerDir(); err != nil {
			return fmt.Errorf("rename the shims' folder: %w", err)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("make the shims' folder: %w", err)
	}
	if o.FormerDir != "" { // also if an agent was killed before it had made the link
		if err := os.Symlink(filepath.Base(o.Dir), o.FormerDir); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link the former name of the shims' folder: %w", err)
		}
	}
	return nil
}

// moveFormerDir renames FormerDir to Dir. If both are folders in use, which no version leaves
// behind, FormerDir stays, and the shims in it end for lack of an agent.
func (o *Options) moveFormerDir() error {
	info, err := os.Lstat(o.FormerDir)
	if errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	err = unix.Rename(o.FormerDir, o.Dir) // unlike os.Rename, it replaces an empty folder
	if errors.Is(err, os.ErrExist) {
		o.Logger.Warn("a second folder of shims is left alone", "folder", o.FormerDir)
		return nil
	}
	return os.NewSyscallError("rename", err)
}

// Client is the agent's side: an executor whose programs outlive this process. There is at most one
// at a time for each state folder. It starts its shim when the first slot is requested, and another
// one when that shim dies.
type Client struct {
	o   Options
	log *slog.Logger
	adoptedRuns

	starting sync.Mutex // held while a shim is being started

	mu      sync.Mutex
	current *controlConn   // the shim that takes new attempts; nil before the first
	earlier []*controlConn // shims of earlier agents
	closed  bool
}

var _ executor.Executor = (*Client)(nil)

// Open takes over the shims that earlier agents have left in the folder, and kills what dead shims
// have left behind. When it returns, the only runs of earlier agents that still go on are those
// that Adopted knows. The caller ends the Client with Close, or with Leave if another agent comes
// after it.
func Open(ctx context.Context, o Options) (*Client, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	log := o.Logger.With("component", "shim")
	c := &Client{o: o, log: log, adoptedRuns: adoptedRuns{log: log, byName: map[string]*adoptedRun{}}}
	dirs, err := shimDirsIn(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, p := range dirs {
		if err := c.takeOver(ctx, p); err != nil {
			c.Leave()
			return nil, fmt.Errorf("take over shim %d: %w", p.id, err)
		}
	}
	if err := c.adoptContainers(ctx); err != nil {
		c.Leave()
		return nil, fmt.Errorf("take over containers: %w", err)
	}
	return c, nil
}

// Start starts the shim now instead of with the first slot.
func (c *Client) Start(ctx context.Context) error {
	_, err := c.ensureShim(ctx)
	return err
}

// Limits reports whether Attempt.Memory is enforced. It is false before the first slot.
func (c *Client) Limits() bool { return c.info().Limits }

// TreeTracking describes how process trees are held together, for logs and for `doctor`. It is
// empty before the first slot.
func (c *Client) TreeTracking() string { return c.info().Trees }

func (c *Client) info() shimInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return shimInfo{}
	}
	return c.current.info
}

var errClosed = errors.New("the executor is closed")

// ensureShim returns the connection to the shim that takes new attempts, and starts one if there is
// none.
func (c *Client) ensureShim(ctx context.Context) (*controlConn, error) {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	l, closed := c.current, c.closed
	c.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case l != nil && !l.isDead():
		return l, nil
	case l != nil:
		<-l.cleared
	}
	l, err := c.launch(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.leave()
		return nil, errClosed
	}
	c.current = l
	return l, nil
}

// stopLaunching returns the connections to all shims, and prevents further ones.
func (c *Client) stopLaunching() []*controlConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	all := c.earlier
	if c.current != nil {
		all = append(all[:len(all):len(all)], c.current)
	}
	return all
}

// Leave leaves everything that runs to the next agent, which must come within AgentTimeout. Runs
// without a name are stopped. Slots must be closed before, or have left what they ran.
func (c *Client) Leave() {
	for _, l := range c.stopLaunching() {
		l.leave()
	}
}

// Close stops everything that still runs, and returns when the shims have ended. Slots must be
// closed before.
func (c *Client) Close() error {
	var ending sync.WaitGroup
	all := c.stopLaunching()
	errs := make([]error, len(all))
	for i, l := range all {
		ending.Go(func() { errs[i] = l.quit() })
	}
	ending.Wait()
	return errors.Join(errs...)
}
