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

// Removal is the result of an uninstallation.
type Removal struct {
	Removed []string // files and folders
	Kept    []string // what was kept, each with the reason
}

// Uninstall stops the service and its shims and removes what Install has made. Without purge it
// keeps settings that have been changed since then, and a state folder that is not empty. It is not
// an error if nothing is installed.
func Uninstall(ctx context.Context, h Manager, purge bool) (Removal, error) {
	if err := h.checkPrivilege(); err != nil {
		return Removal{}, err
	}
	if err := h.checkReachable(ctx); err != nil {
		return Removal{}, err
	}
	l, err := h.layout()
	if err != nil {
		return Removal{}, err
	}
	text, err := readIfExists(l.unit)
	if err != nil {
		return Removal{}, fmt.Errorf("read the unit: %w", err)
	}
	if err := h.stopAll(ctx, text != ""); err != nil {
		return Removal{}, err
	}
	r := &removal{layout: l, purge: purge}
	r.removeCreated(readCreatedFiles(text))
	if _, err := h.systemctl(ctx, "daemon-reload"); err != nil {
		r.failed = append(r.failed, fmt.Errorf("make systemd forget the unit: %w", err))
	}
	_, _ = h.systemctl(ctx, "reset-failed", Unit)            // there may be nothing to reset
	if owner := readCreatedFiles(text).Linger; owner != "" { // the installation has enabled it
		others, err := filepath.Glob(filepath.Join(filepath.Dir(l.unit), "*.wants", "*"))
		if err == nil && len(others) > 0 {
			r.Kept = append(r.Kept, "lingering of "+owner+": other services of this user are enabled")
		} else if err := setLinger(ctx, "disable-linger", owner); err != nil {
			r.failed = append(r.failed, fmt.Errorf("disable lingering: %w", err))
		}
	}
	return r.Removal, errors.Join(r.failed...)
}

// stopAll stops the agent, which stops its shims, and then the shims that remain.
func (h Manager) stopAll(ctx context.Context, installed bool) error {
	if installed {
		if _, err := h.systemctl(ctx, "disable", "--now", "--quiet", Unit); err != nil {
			return fmt.Errorf("stop the service: %w", err)
		}
	}
	scopes, err := h.scopes(ctx)
	if err != nil {
		return fmt.Errorf("list shims: %w", err)
	}
	if len(scopes) == 0 {
		return nil
	}
	if _, err := h.systemctl(ctx, append([]string{"stop"}, scopes...)...); err != nil &&
		!strings.Contains(err.Error(), "not loaded") {
		return fmt.Errorf("stop shims: %w", err)
	}
	_, _ = h.systemctl(ctx, append([]string{"reset-failed"}, scopes...)...) // most are gone already
	return nil
}

// removal is an uninstallation in progress.
type removal struct {
	layout
	Removal
	purge  bool
	failed []error
}

// removeCreated removes files, and continues if one can't be removed.
func (r *removal) removeCreated(m createdFiles) {
	r.remove(r.unit)
	r.removeDropIns(r.unit + ".d")
	r.remove(m.Program)
	if _, err := os.Stat(m.Access); err == nil && !r.purge { // it is also useful without the service
		r.Kept = append(r.Kept, m.Access+": it is your access to the cluster, which --purge removes")
	} else if err == nil {
		r.remove(m.Access)
		r.removeEmpty(filepath.Dir(m.Access))
	}
	if b, err := os.ReadFile(m.Config); err == nil && digest(b) != m.Digest && !r.purge {
		r.Kept = append(r.Kept, m.Config+": it was changed after the installation; --purge removes it")
	} else if err == nil {
		r.remove(m.Config)
		r.removeEmpty(filepath.Dir(m.Config))
	}
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

// removeDropIns removes the settings that the user has added to the unit.
func (r *removal) removeDropIns(dir string) {
	if _, err := os.Stat(dir); err == nil && !r.purge {
		r.Kept = append(r.Kept, dir+": these are your settings of the service, which --purge removes")
		return
	}
	r.remove(dir)
}

func (r *removal) removeEmpty(dir string) {
	if os.Remove(dir) == nil {
		r.Removed = append(r.Removed, dir)
	}
}

// remove removes a file or a folder with its content, if it exists.
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
