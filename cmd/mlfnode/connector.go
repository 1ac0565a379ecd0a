package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// connector finds the node that a command is for, and opens sessions with it.
type connector struct {
	*console
	state   string // folder, of --state-dir
	config  string // file, of --config
	master  string // HOST or HOST:PORT, of --master
	local   bool
	verbose bool
}

// withConsole returns a connector with the same flags and another console.
func (c *connector) withConsole(ui *console) *connector {
	other := *c
	other.console = ui
	return &other
}

// errNoState is returned by withSession when nothing was ever stored: reading creates no state.
var errNoState = failed("there are no sweeps yet", "mlfnode sweep PROJECT")

// maxReattachments bounds how often a command looks for another node after its node went away. A
// node leaves in good order when its terminal's work is done, so meeting even several that leave is
// unlikely.
const maxReattachments = 10

// awaitingMaster is the message of a command that waits for the master while trials run.
const awaitingMaster = "the master does not answer; waiting for it (trials continue)"

// settings loads node.yaml and applies the global flags.
func (c *connector) settings() (config.Config, error) {
	cfg, err := config.Load(settingsFile(c.config, c.state))
	if err != nil {
		return cfg, usage(err.Error(), "the node.yaml that comes with mlfnode explains every setting")
	}
	if c.state != "" {
		if cfg.StateDir, err = config.StatePath(c.state); err != nil {
			return cfg, usage("--state-dir: "+err.Error(), "")
		}
	}
	if nested := trialNodeState(); c.local && c.state == "" && nested != "" {
		cfg.StateDir = nested
		if err := cfg.WithinTrial(); err != nil {
			return cfg, usage(err.Error(), "leave these variables as the trial's node set them")
		}
	} else if c.local && node.RoleOf(cfg.StateDir) != "" {
		cfg.StateDir = filepath.Join(cfg.StateDir, "local") // the folder itself is the cluster's
	}
	cfg.Version = version().Version
	level := slog.LevelWarn
	if c.verbose {
		level = slog.LevelDebug
	}
	cfg.Logger = slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
	return cfg, nil
}

// settingsFile names the settings file to read. Without --config, a program that up has installed
// as ROOT/bin/mlfnode reads ROOT/node.yaml. "" means the default places.
func settingsFile(config, state string) string {
	if config != "" || state != "" || os.Getenv("MLF_CONFIG") != "" || os.Getenv("MLF_STATE") != "" {
		return config
	}
	self, err := os.Executable()
	if err != nil || filepath.Base(filepath.Dir(self)) != "bin" {
		return ""
	}
	file := filepath.Join(filepath.Dir(filepath.Dir(self)), "node.yaml")
	if b, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(b), protocol.NodeHeading) {
		return "" // not written by up, as in a source tree
	}
	return file
}

// requireState returns errNoState if there is no state folder.
func (c *connector) requireState() error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.StateDir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if d, err := c.destination(); err != nil || !d.alone() {
		return err
	}
	return errNoState
}

// destination says where a command goes: to the cluster of this machine's state folder, to the
// cluster that the user has chosen, or, without either, to this machine alone.
type destination struct {
	cfg     config.Config // of this machine
	role    grid.NodeRole // of this machine in its cluster
	contact *node.Contact
}

func (d *destination) alone() bool { return d.role == "" && d.contact == nil }

// destination decides where a command goes. For a machine in a cluster, settings has already chosen
// a state folder for --local.
func (c *connector) destination() (destination, error) {
	cfg, err := c.settings()
	if err != nil {
		return destination{}, err
	}
	d := destination{cfg: cfg}
	if c.master == "" || c.local {
		d.role = node.RoleOf(cfg.StateDir)
	}
	var moved error
	if d.role == grid.Master {
		if moved = node.CheckMoved(cfg.StateDir); moved != nil {
			d.role = ""
		}
	}
	contact, err := c.contact()
	switch {
	case d.role == grid.Master && (err != nil || contact == nil || contact.OfSame(cfg.StateDir)):
		return d, nil // the owner of the folder needs no token
	case err != nil:
		return d, err
	case moved != nil && contact == nil:
		return d, failed(asFailure(moved).msg,
			"run this on that machine, or get access to it from here with: mlfnode token use --master HOST")
	case d.role == grid.Worker && contact == nil:
		master := node.MasterOf(cfg.StateDir)
		return d, failed(fmt.Sprintf("this machine is a worker of the cluster of %s, and you have no token for it",
			master),
			fmt.Sprintf("mlfnode token use --master %s; --local runs on this machine alone", master))
	}
	d.contact = contact
	return d, nil
}

// contact returns the cluster that the user has chosen, nil if there is none.
func (c *connector) contact() (*node.Contact, error) {
	if c.local {
		return nil, nil
	}
	return node.FindContact(c.master)
}

// attach opens a session with the node that the command is for. On a machine outside any cluster
// where no node runs, it opens one in this process: if host is true, one that runs trials, else one
// that only answers reads.
func (c *connector) attach(ctx context.Context, host bool) (*node.Session, error) {
	d, err := c.destination()
	if err != nil {
		return nil, err
	}
	if d.alone() {
		dir := d.cfg.StateDir
		if err := makeStateFolder(c.console, dir); err != nil {
			return nil, err
		}
		return node.Attach(ctx, d.cfg, host, func() {
			c.say("another mlfnode is using the state folder %s; waiting for it", relativePath(dir))
		})
	}
	return c.connectToCluster(ctx, &d)
}

// connectToCluster opens a session with the master. It waits some seconds for one that is being
// restarted.
func (c *connector) connectToCluster(ctx context.Context, d *destination) (*node.Session, error) {
	if d.contact == nil {
		return c.ownNode(ctx, d)
	}
	if d.role == grid.Master {
		if s, _ := node.At(ctx, d.cfg); s != nil {
			return s, nil
		}
	}
	return node.ReachAgain(ctx, d.contact, func() { c.say("the master does not answer; waiting for it") })
}

// ownNode opens a session with this machine's node in its cluster.
func (c *connector) ownNode(ctx context.Context, d *destination) (*node.Session, error) {
	role, dir := d.role, d.cfg.StateDir
	s, err := node.Await(ctx, d.cfg, func() { c.say("the %s of this machine does not answer; waiting for it", role) })
	if !errors.Is(err, node.ErrDown) {
		return s, err
	}
	if name := otherOwner(dir); name != "" {
		return nil, failed(fmt.Sprintf("the state folder %s belongs to the user %s", relativePath(dir), name),
			runAsHint(name))
	}
	start := map[grid.NodeRole]string{grid.Master: "mlfnode master", grid.Worker: "mlfnode join"}[role]
	if c.state != "" {
		start += " --state-dir " + c.state
	}
	return nil, failed(fmt.Sprintf("the %s of this machine is down; its state folder is %s", role, relativePath(dir)),
		fmt.Sprintf(
			"start it with: %s, or bring its cluster up with: mlfnode up -f; --local runs on this machine alone",
			start))
}

// nearestNode opens a session with the node of this machine, or else with the master.
func (c *connector) nearestNode(ctx context.Context) (*node.Session, error) {
	d, err := c.destination()
	if d.role != "" {
		if s, about := node.At(ctx, d.cfg); s != nil && about.Role != "" {
			return s, nil
		} else if s != nil {
			s.Close()
		}
	}
	switch {
	case d.role != "" && (err != nil || d.contact == nil):
		return c.ownNode(ctx, &d)
	case err != nil:
		return nil, err
	case d.alone():
		return nil, failed("no node of a cluster is running on this machine",
			"start one with: mlfnode master, or join one with: mlfnode join --seed HOST")
	}
	return c.connectToCluster(ctx, &d)
}

// withSession calls fn with a session for reading. If the node goes away meanwhile, fn is called
// again with another one, unless it has printed something already.
func (c *connector) withSession(ctx context.Context, fn func(*node.Session) error) error {
	if err := c.requireState(); err != nil {
		return err
	}
	before := c.stdout.written
	return retryWhileLost(func() error {
		s, err := c.attach(ctx, false)
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(s)
	}, func(err error) bool { return c.stdout.written == before })
}

// openSession opens a session with the node, or with one in this process, calls fn with it and
// returns it once fn has succeeded. With detach, the node runs in the background. fn is called
// again if the node goes away meanwhile.
func (c *connector) openSession(ctx context.Context, detach bool, fn func(*api.Client) error) (*node.Session, error) {
	if !detach {
		d, err := c.destination()
		if err == nil {
			err = refuseInsideTrial(&d)
		}
		if err != nil {
			return nil, err
		}
	}
	var s *node.Session
	err := retryWhileLost(func() error {
		var err error
		if detach {
			err = c.ensureBackgroundNode(ctx)
		}
		if err == nil {
			s, err = c.attach(ctx, true)
		}
		if err != nil {
			return err
		}
		if err = fn(s.Client()); err != nil {
			s.Close()
		}
		return err
	}, func(error) bool { return true })
	return s, err
}

// callMaster calls fn with a client of the cluster's master.
func (c *connector) callMaster(ctx context.Context, fn func(*api.Client) error) error {
	return c.withMaster(ctx, func(s *node.Session) error { return fn(s.Client()) })
}

// withMaster calls fn with a session with the cluster's master.
func (c *connector) withMaster(ctx context.Context, fn func(*node.Session) error) error {
	d, err := c.destination()
	if err != nil {
		return err
	}
	if d.alone() {
		return failed("no master is running on this machine, and you have not joined a cluster",
			"start one with: mlfnode master, or choose one with: mlfnode token use --master HOST")
	}
	s, err := c.connectToCluster(ctx, &d)
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

// retryWhileLost calls fn again as long as its node goes away meanwhile and may allows it.
func retryWhileLost(fn func() error, may func(error) bool) error {
	for n := 0; ; n++ {
		err := fn()
		if !errors.Is(err, api.ErrLost) || n == maxReattachments || !may(err) {
			return err
		}
	}
}
