package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"mlfnode/projects"
)

// Removal says what an uninstallation has done.
type Removal struct {
	Removed []string // files and folders
	Kept    []string // what was left on purpose, each with the reason
}

// Uninstall stops the service and its shims and removes what Install has made. Settings that were changed since and a state
// folder that holds something stay unless purge is set. Nothing to remove is not an error.
func Uninstall(ctx context.Context, h Home, purge bool) (Removal, error) {
	if err := h.allowed(); err != nil {
		return Removal{}, err
	}
	if err := h.ready(ctx); err != nil {
		return Removal{}, err
	}
	l, err := h.layout()
	if err != nil {
		return Removal{}, err
	}
	text, err := readIfThere(l.unit)
	if err != nil {
		return Removal{}, fmt.Errorf("read the unit: %w", err)
	}
	if err := h.stopAll(ctx, text != ""); err != nil {
		return Removal{}, err
	}
	r := &removal{Home: h, layout: l, purge: purge}
	r.clear(readMarks(text))
	if _, err := h.systemctl(ctx, "daemon-reload"); err != nil {
		r.failed = append(r.failed, fmt.Errorf("have systemd forget the unit: %w", err))
	}
	_, _ = h.systemctl(ctx, "reset-failed", Unit) // there may be nothing to reset
	r.unlinger(ctx, readMarks(text).Linger)
	return r.Removal, errors.Join(r.failed...)
}

// stopAll ends the agent, which ends its shims, and then the shims that are left.
func (h Home) stopAll(ctx context.Context, installed bool) error {
	if installed {
		if _, err := h.systemctl(ctx, "disable", "--now", "--quiet", Unit); err != nil {
			return fmt.Errorf("stop the service: %w", err)
		}
	}
	scopes, err := h.scopes(ctx)
	if err != nil {
		return fmt.Errorf("look for shims: %w", err)
	}
	if len(scopes) == 0 {
		return nil
	}
	if _, err := h.systemctl(ctx, append([]string{"stop"}, scopes...)...); err != nil && !strings.Contains(err.Error(), "not loaded") {
		return fmt.Errorf("stop shims: %w", err)
	}
	_, _ = h.systemctl(ctx, append([]string{"reset-failed"}, scopes...)...) // most are gone already
	return nil
}

// removal is an uninstallation under way.
type removal struct {
	Home
	layout
	Removal
	purge  bool
	failed []error
}

// clear removes files, and goes on when one can't be removed.
func (r *removal) clear(m marks) {
	r.remove(r.unit)
	r.clearDropIns(r.unit + ".d")
	r.remove(m.Program)
	r.clearAccess(m.Access)
	r.clearConfig(m)
	if r.purge {
		r.remove(m.State)
		return
	}
	if m.State == "" {
		return
	}
	switch err := os.Remove(m.State); {
	case err == nil:
		r.Removed = append(r.Removed, m.State)
	case errors.Is(err, syscall.ENOTEMPTY):
		r.Kept = append(r.Kept, m.State+": it holds the node's state, which --purge removes")
	}
}

// clearDropIns removes the settings that the user has added to the unit.
func (r *removal) clearDropIns(dir string) {
	if _, err := os.Stat(dir); err == nil && !r.purge {
		r.Kept = append(r.Kept, dir+": these are your settings of the service, which --purge removes")
		return
	}
	r.remove(dir)
}

func (r *removal) clearConfig(m marks) {
	b, err := os.ReadFile(m.Config)
	if err != nil {
		return
	}
	if digestOf(b) != m.Digest && !r.purge {
		r.Kept = append(r.Kept, m.Config+": it was changed after the installation; --purge removes it")
		return
	}
	r.remove(m.Config)
	r.removeEmpty(filepath.Dir(m.Config))
}

// clearAccess removes what lets the user talk to the cluster. It is of use without the service, too.
func (r *removal) clearAccess(file string) {
	if _, err := os.Stat(file); err != nil {
		return
	}
	if !r.purge {
		r.Kept = append(r.Kept, file+": it is your access to the cluster, which --purge removes")
		return
	}
	r.remove(file)
	r.removeEmpty(filepath.Dir(file))
}

func (r *removal) removeEmpty(dir string) {
	if os.Remove(dir) == nil {
		r.Removed = append(r.Removed, dir)
	}
}

// remove removes a file or a folder with what is in it, if it is there.
func (r *removal) remove(path string) {
	if path == "" {
		return
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err := projects.RemoveTree(path); err != nil { // copies of read-only folders are read-only
		r.failed = append(r.failed, err)
		return
	}
	r.Removed = append(r.Removed, path)
}

// unlinger takes back what the installation asked for, unless another of the user's services may need it by now.
func (r *removal) unlinger(ctx context.Context, owner string) {
	if owner == "" {
		return
	}
	others, err := filepath.Glob(filepath.Join(filepath.Dir(r.unit), "*.wants", "*"))
	if err == nil && len(others) > 0 {
		r.Kept = append(r.Kept, "lingering of "+owner+": other services of this user are enabled")
		return
	}
	if err := setLinger(ctx, "disable-linger", owner); err != nil {
		r.failed = append(r.failed, fmt.Errorf("take back lingering: %w", err))
	}
}
