package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
func (a *app) knownState() error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	if _, err := os.Stat(cfg.StateDir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if contact, err := a.contact(); err != nil || contact != nil {
		return err
	}
	return errNoState
}

// contact gives the cluster that the user has chosen, nil for none.
func (a *app) contact() (*node.Contact, error) {
	if a.local {
		return nil, nil
	}
	return node.FindContact(a.master)
}

// find gives a session with the node that commands are for, without starting one: the node of this machine's state folder,
// unless it is a worker; then, or when none runs, the master of the cluster that the user has chosen. Nil is neither.
func (a *app) find(ctx context.Context, cfg node.Config) (*node.Session, error) {
	if a.master == "" || a.local {
		s, about := node.At(ctx, cfg)
		if s != nil && about.Role != "worker" {
			return s, nil
		}
		if s != nil {
			s.Close()
		}
	}
	contact, err := a.contact()
	if err != nil || contact == nil {
		return nil, err
	}
	return node.Reach(ctx, contact)
}

// standsAlone reports whether commands are for this machine alone.
func (a *app) standsAlone(ctx context.Context, cfg node.Config) (bool, error) {
	if a.master == "" || a.local {
		s, about := node.At(ctx, cfg)
		if s != nil {
			defer s.Close()
			return about.Role == "", nil
		}
	}
	contact, err := a.contact()
	return contact == nil, err
}

// attach finds the node, or makes it in this process.
func (a *app) attach(ctx context.Context, host bool) (*node.Session, error) {
	cfg, err := a.settings()
	if err != nil {
		return nil, err
	}
	if s, err := a.find(ctx, cfg); s != nil || err != nil {
		return s, err
	}
	if err := a.makeState(cfg.StateDir); err != nil {
		return nil, err
	}
	return node.Attach(ctx, cfg, host)
}

// makeState makes the state folder, or refuses one that others have rights to.
func (a *app) makeState(dir string) error {
	mended, err := node.MakeState(dir)
	switch {
	case errors.Is(err, private.ErrExposed):
		return failed(strings.TrimPrefix(err.Error(), "make state folder: "), "choose a folder of your own with --state-dir, or, if this is one: chmod 700 "+fromHere(dir))
	case err != nil:
		return failed(fmt.Sprintf("the state folder %s can't be made: %v", fromHere(dir), bare(errors.Unwrap(err))), "choose another one with --state-dir")
	case mended:
		a.say("mlfnode: other users had rights to the state folder %s; it is yours alone now", fromHere(dir))
	}
	return nil
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
func (a *app) read(ctx context.Context, fn func(*node.Session) error) error {
	if err := a.knownState(); err != nil {
		return err
	}
	before := a.stdout.written
	return again(func() error {
		s, err := a.attach(ctx, false)
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(s)
	}, func(err error) bool { return a.stdout.written == before })
}

// begin finds the node or becomes it, and calls fn with it; to detach, it has one running in the background. It gives the
// session that fn succeeded with. fn is called again when the node goes away in the middle, so it must bear that.
func (a *app) begin(ctx context.Context, detach bool, fn func(*api.Client) error) (*node.Session, error) {
	var s *node.Session
	err := again(func() error {
		var err error
		if detach {
			err = a.detachable(ctx)
		}
		if err == nil {
			s, err = a.attach(ctx, true)
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
func (a *app) detachable(ctx context.Context) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	local, err := a.standsAlone(ctx, cfg)
	if err != nil || !local {
		return err
	}
	return a.background(ctx)
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

// whole calls fn with an app that prints nothing until fn is done, so that fn can be called again when the node goes away in
// its middle.
func (f *follower) whole(ctx context.Context, fn func(*app) error) error {
	var out, complaints bytes.Buffer
	err := again(func() error {
		out.Reset()
		complaints.Reset()
		quiet := *f.app
		quiet.stdout, quiet.stderr = &screen{w: &out}, &complaints
		err := fn(&quiet)
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

// screen is where results go. It knows how much has been written.
type screen struct {
	w       io.Writer
	written int64
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.written += int64(n)
	return n, err
}
