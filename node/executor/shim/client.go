package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
)

// Options are the settings of a Client.
type Options struct {
	Dir      string          // folder of the keepers, below the state folder; made if it is not there
	Token    string          // of the state folder, see process.Options
	Program  string          // what to start with Command as its first argument; empty is this program
	Wrap     func() []string // gives what to put before each keeper, for example systemd-run --scope; the keeper must become its process; nil is nothing
	Env      []string        // the keeper's environment; nil is that of this process
	Patience time.Duration   // how long a keeper waits for an agent; 0 is DefaultPatience
	Cgroups  process.Cgroups // as in process.Options
	// Containers has keepers run attempts in containers, too; nil is none.
	Containers *docker.Options
	Logger     *slog.Logger

	own bool // Program is this program
}

// program is what is started: this very program where its file is gone, as while an upgrade puts another one in its place.
func (o *Options) program() string {
	if _, err := os.Stat(o.Program); o.own && errors.Is(err, os.ErrNotExist) {
		return fmt.Sprintf("/proc/%d/exe", os.Getpid())
	}
	return o.Program
}

func (o *Options) complete() error {
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	if o.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		o.Program, o.own = self, true
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("make the keepers' folder: %w", err)
	}
	return nil
}

// Client is the agent's side: an executor whose programs outlive this process. There is one for each state folder at a
// time. It starts its keeper when the first slot is asked for, and another one when a keeper dies.
type Client struct {
	o   Options
	log *slog.Logger

	starting sync.Mutex // held while a keeper is being started

	mu      sync.Mutex
	link    *link            // the keeper that takes new attempts; nil before the first
	earlier []*link          // keepers of earlier agents
	adopted map[string]*kept // what they run, by its name
	closed  bool
}

var _ executor.Executor = (*Client)(nil)

// Open takes over the keepers that earlier agents have left in the folder, and kills what dead ones have left behind. Until
// it returns, nothing but what Adopted knows is still running of what earlier agents began. The caller ends the Client with
// Close, or with Leave when another agent comes after it.
func Open(ctx context.Context, o Options) (*Client, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c := &Client{o: o, log: o.Logger.With("component", "keeper"), adopted: map[string]*kept{}}
	places, err := placesIn(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		if err := c.takeOver(ctx, p); err != nil {
			c.Leave()
			return nil, fmt.Errorf("take over keeper %d: %w", p.id, err)
		}
	}
	if err := c.adoptContainers(ctx); err != nil {
		c.Leave()
		return nil, fmt.Errorf("take over containers: %w", err)
	}
	return c, nil
}

// Start starts the keeper now instead of with the first slot.
func (c *Client) Start(ctx context.Context) error {
	_, err := c.keeper(ctx)
	return err
}

// Limits reports whether Attempt.Memory is enforced. Before the first slot it is not known and false.
func (c *Client) Limits() bool { return c.hold().Limits }

// Held says how process trees are held together, for logs and for `doctor`; empty before the first slot.
func (c *Client) Held() string { return c.hold().Held }

func (c *Client) hold() holdings {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return holdings{}
	}
	return c.link.hold
}

var errClosed = errors.New("the executor is closed")

// keeper gives the keeper that takes new attempts, and starts one if there is none.
func (c *Client) keeper(ctx context.Context) (*link, error) {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	l, closed := c.link, c.closed
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
	c.link = l
	return l, nil
}

// links gives the connections to all keepers, and lets none be added.
func (c *Client) links() []*link {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	all := c.earlier
	if c.link != nil {
		all = append(all[:len(all):len(all)], c.link)
	}
	return all
}

// Leave leaves everything that runs to the next agent, which must come within Patience. Runs without a name are stopped.
// Slots must be closed before, or have left what they ran.
func (c *Client) Leave() {
	for _, l := range c.links() {
		l.leave()
	}
}

// Close stops everything that still runs, and returns when the keepers have ended. Slots must be closed before.
func (c *Client) Close() error {
	var ending sync.WaitGroup
	all := c.links()
	errs := make([]error, len(all))
	for i, l := range all {
		ending.Go(func() { errs[i] = l.quit() })
	}
	ending.Wait()
	return errors.Join(errs...)
}
