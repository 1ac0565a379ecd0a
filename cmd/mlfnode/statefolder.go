package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"mlfnode/grid/problem"
	"mlfnode/node"
	"mlfnode/node/private"
)

// makeStateFolder makes the state folder, or refuses one that other users can access.
func makeStateFolder(ui *console, dir string) error {
	changed, err := node.MakeState(dir)
	switch {
	case errors.Is(err, private.ErrExposed) && os.Geteuid() == 0 && otherOwner(dir) != "":
		name := otherOwner(dir)
		return failed(fmt.Sprintf("the state folder %s belongs to the user %s", relativePath(dir), name),
			runAsHint(name))
	case errors.Is(err, private.ErrExposed):
		return failed(strings.TrimPrefix(err.Error(), "make state folder: "),
			"choose a folder of your own with --state-dir, or, if this one should be yours: chown and chmod 700 "+
				relativePath(dir))
	case err != nil:
		return failed(fmt.Sprintf("the state folder %s can't be created: %v", relativePath(dir),
			problem.WithoutPath(errors.Unwrap(err))), "choose another one with --state-dir")
	case changed:
		ui.say("mlfnode: other users had access to the state folder %s; now only you do", relativePath(dir))
	}
	return nil
}

// otherOwner returns the name of the user that owns a folder, "" if it is the user of this process.
func otherOwner(dir string) string {
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

// runAsHint says what to try with a state folder of another user.
func runAsHint(name string) string {
	return fmt.Sprintf("run it as that user: sudo -u '%s' mlfnode …", name)
}

// relativePath shortens a path below the current folder.
func relativePath(path string) string {
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return path
}
