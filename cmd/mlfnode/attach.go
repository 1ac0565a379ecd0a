package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/private"
)

// reattachments bounds how often a command looks for a node again that went away in the middle. A node leaves in good order
// when its terminal's work is done, so meeting several that leave is bad luck already.
const reattachments = 10

// errNoState is the answer of read when nothing was ever stored; looking makes no state.
var errNoState = failed("there is no sweep yet", "mlfnode sweep PROJECT")

// knownState gives errNoState where no state folder is.
func (c *connector) knownState() error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.StateDir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if d, err := c.destination(&cfg); err != nil || !d.alone() {
		return err
	}
	return errNoState
}

// destination is what a command is for: the cluster of this machine's folder, the cluster that the user has chosen, or, with
// neither, this machine alone.
type destination struct {
	role    trust.NodeRole // of this machine in its cluster
	contact *node.Contact
}

func (d *destination) alone() bool { return d.role == "" && d.contact == nil }

// destination finds it. What --local means to a machine that belongs to a cluster, settings has seen to.
func (c *connector) destination(cfg *node.Config) (destination, error) {
	d := destination{}
	if c.master == "" || c.local {
		d.role = node.RoleOf(cfg.StateDir)
	}
	var moved error
	if d.role == trust.Master {
		if moved = node.CheckMoved(cfg.StateDir); moved != nil {
			d.role = ""
		}
	}
	contact, err := c.contact()
	switch {
	case d.role == trust.Master && (err != nil || contact == nil || contact.OfSame(cfg.StateDir)):
		return d, nil // its owner needs no token
	case err != nil:
		return d, err
	case moved != nil && contact == nil:
		return d, failed(explain(moved).msg, "run this on that machine, or get access to it from here with: mlfnode token use --master HOST")
	case d.role == trust.Worker && contact == nil:
		master := node.MasterOf(cfg.StateDir)
		return d, failed(fmt.Sprintf("this machine is a worker of the cluster of %s, and you have no token for it", master),
			fmt.Sprintf("mlfnode token use --master %s; --local runs on this machine alone", master))
	}
	d.contact = contact
	return d, nil
}

// contact gives the cluster that the user has chosen, nil for none.
func (c *connector) contact() (*node.Contact, error) {
	if c.local {
		return nil, nil
	}
	return node.FindContact(c.master)
}

// standsAlone reports whether commands are for this machine alone.
func (c *connector) standsAlone(cfg *node.Config) (bool, error) {
	d, err := c.destination(cfg)
	return d.alone(), err
}

// attach finds the node that commands are for. On a machine that is in no cluster it is made in this process where none runs: with
// host true one that works, else one for reads.
func (c *connector) attach(ctx context.Context, host bool) (*node.Session, error) {
	cfg, err := c.settings()
	if err != nil {
		return nil, err
	}
	d, err := c.destination(&cfg)
	if err != nil {
		return nil, err
	}
	if d.alone() {
		if err := makeState(c.console, cfg.StateDir); err != nil {
			return nil, err
		}
		return node.Attach(ctx, cfg, host, func() { c.say("another mlfnode uses the state folder %s; waiting for it", fromHere(cfg.StateDir)) })
	}
	return c.inCluster(ctx, &cfg, &d)
}

// inCluster gives a session with the master. It waits some seconds for one that is being restarted.
func (c *connector) inCluster(ctx context.Context, cfg *node.Config, d *destination) (*node.Session, error) {
	if d.contact == nil {
		return c.own(ctx, cfg, d.role)
	}
	if d.role == trust.Master {
		if s, _ := node.At(ctx, *cfg); s != nil {
			return s, nil
		}
	}
	return node.ReachAgain(ctx, d.contact, func() { c.say("the master does not answer; waiting for it") })
}

// own gives a session with this machine's node in its cluster.
func (c *connector) own(ctx context.Context, cfg *node.Config, role trust.NodeRole) (*node.Session, error) {
	s, err := node.Await(ctx, *cfg, func() { c.say("the %s of this machine does not answer; waiting for it", role) })
	if !errors.Is(err, node.ErrDown) {
		return s, err
	}
	if name := ownerOf(cfg.StateDir); name != "" {
		return nil, failed(fmt.Sprintf("the state folder %s belongs to the user %s", fromHere(cfg.StateDir), name), asOwner(name))
	}
	start := map[trust.NodeRole]string{trust.Master: "mlfnode master", trust.Worker: "mlfnode join"}[role]
	if c.state != "" {
		start += " --state-dir " + c.state
	}
	return nil, failed(fmt.Sprintf("the %s of this machine is down; its state folder is %s", role, fromHere(cfg.StateDir)),
		fmt.Sprintf("start it with: %s, or bring its cluster up with: mlfnode up -f; --local runs on this machine alone", start))
}

// makeState makes the state folder, or refuses one that others have rights to.
func makeState(ui *console, dir string) error {
	changed, err := node.MakeState(dir)
	switch {
	case errors.Is(err, private.ErrExposed) && os.Geteuid() == 0 && ownerOf(dir) != "":
		name := ownerOf(dir)
		return failed(fmt.Sprintf("the state folder %s belongs to the user %s", fromHere(dir), name), asOwner(name))
	case errors.Is(err, private.ErrExposed):
		return failed(strings.TrimPrefix(err.Error(), "make state folder: "), "choose a folder of your own with --state-dir, or, if this one should be yours: chown and chmod 700 "+fromHere(dir))
	case err != nil:
		return failed(fmt.Sprintf("the state folder %s can't be created: %v", fromHere(dir), bare(errors.Unwrap(err))), "choose another one with --state-dir")
	case changed:
		ui.say("mlfnode: other users had access to the state folder %s; now only you do", fromHere(dir))
	}
	return nil
}

// ownerOf names the user that a folder belongs to, "" where that is the user of this process.
func ownerOf(dir string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(s.Uid) == os.Geteuid() {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(int(s.Uid)))
	if err != nil {
		return fmt.Sprintf("#%d", s.Uid)
	}
	return u.Username
}

// asOwner is what to try with the state of another user.
func asOwner(name string) string {
	return fmt.Sprintf("run it as that user: sudo -u '%s' mlfnode …", name)
}

// fromHere shortens a path below the current folder.
func fromHere(path string) string {
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return path
}

// read calls fn with a node that is there for reading. When the node goes away in the middle, fn is called again with
// another one, unless it has printed something already.
func (c *connector) read(ctx context.Context, fn func(*node.Session) error) error {
	if err := c.knownState(); err != nil {
		return err
	}
	before := c.stdout.written
	return again(func() error {
		s, err := c.attach(ctx, false)
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(s)
	}, func(err error) bool { return c.stdout.written == before })
}

// begin finds the node or becomes it, and calls fn with it; to detach, it has one running in the background. It gives the
// session that fn succeeded with. fn is called again when the node goes away in the middle, so it must bear that.
func (c *connector) begin(ctx context.Context, detach bool, fn func(*api.Client) error) (*node.Session, error) {
	if !detach {
		cfg, err := c.settings()
		if err != nil {
			return nil, err
		}
		d, err := c.destination(&cfg)
		if err == nil {
			err = notInside(&cfg, &d)
		}
		if err != nil {
			return nil, err
		}
	}
	var s *node.Session
	err := again(func() error {
		var err error
		if detach {
			err = c.detachable(ctx)
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

// detachable sees to it that a node runs which outlives this command.
func (c *connector) detachable(ctx context.Context) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	alone, err := c.standsAlone(&cfg)
	if err != nil || !alone {
		return err
	}
	return c.background(ctx)
}

// again calls fn until the node does not go away in its middle.
func again(fn func() error, may func(error) bool) error {
	for n := 0; ; n++ {
		err := fn()
		if !errors.Is(err, api.ErrLost) || n == reattachments || !may(err) {
			return err
		}
	}
}

// whole calls fn with a console that prints nothing until fn is done, so that fn can be called again when the node goes away in
// its middle.
func (f *follower) whole(ctx context.Context, fn func(*console) error) error {
	var out, complaints bytes.Buffer
	err := again(func() error {
		out.Reset()
		complaints.Reset()
		buffered := *f.app.console
		buffered.stdout, buffered.stderr = &screen{w: &out}, &complaints
		err := fn(&buffered)
		if errors.Is(err, api.ErrLost) {
			if e := f.again(ctx); e != nil {
				return e
			}
		}
		return err
	}, func(error) bool { return true })
	if err != nil {
		return err
	}
	if _, err := out.WriteTo(f.app.stdout); err != nil {
		return err
	}
	_, err = complaints.WriteTo(f.app.stderr)
	return err
}

// screen is where results go. It knows how much has been written, and what last went wrong with that.
type screen struct {
	w       io.Writer
	written int64
	err     error
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.written += int64(n)
	if err != nil {
		s.err = err
	}
	return n, err
}

// complete gives the failure of a command whose output is not all there, although it ran well or failed of that: who reads a file that
// it was written to would take it for whole. What nobody reads any more need not be there.
func (s *screen) complete(err error) error {
	if s.err == nil || errors.Is(s.err, syscall.EPIPE) || err != nil && !errors.Is(err, s.err) {
		return err
	}
	return failed(fmt.Sprintf("the output can't be written: %v", bare(s.err)), "make room where it goes, or send it elsewhere")
}
