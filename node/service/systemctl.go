package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// queryTimeout bounds one query to systemd. Starting and stopping have timeouts of their own.
const queryTimeout = 10 * time.Second

// systemctl runs a systemctl command and returns its output.
func (h Manager) systemctl(ctx context.Context, args ...string) (string, error) {
	if h.User {
		args = append([]string{"--user"}, args...)
	}
	return run(ctx, "systemctl", append([]string{"--no-pager"}, args...)...)
}

// run runs a program of the host and returns its output. The error contains what the program
// printed to stderr.
func run(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if os.Getenv("XDG_RUNTIME_DIR") == "" { // shells started by su do not know where this user's systemd listens
		dir := filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
		if _, err := os.Stat(dir); err == nil {
			c.Env = append(c.Env, "XDG_RUNTIME_DIR="+dir)
		}
	}
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &out, &stderr, time.Second
	err := c.Run()
	if err == nil {
		return strings.TrimSpace(out.String()), nil
	}
	if text := strings.TrimSpace(stderr.String()); text != "" {
		err = errors.New(strings.ReplaceAll(text, "\n", "; "))
	}
	return strings.TrimSpace(out.String()), fmt.Errorf("%s: %w", program, err)
}

// properties returns properties of the unit.
func (h Manager) properties(ctx context.Context, names ...string) (map[string]string, error) {
	out, err := h.systemctl(ctx, "show", Unit, "-p", strings.Join(names, ","))
	if err != nil {
		return nil, err
	}
	p := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			p[key] = value
		}
	}
	return p, nil
}

// version returns the number of systemd's release, or 0 if it is unknown.
func (h Manager) version(ctx context.Context) int {
	out, err := h.systemctl(ctx, "--version") // "systemd 252 (252.39-1)"
	if fields := strings.Fields(out); err == nil && len(fields) > 1 {
		n, _ := strconv.Atoi(fields[1])
		return n
	}
	return 0
}

// scopes lists the existing scopes of shims.
func (h Manager) scopes(ctx context.Context) ([]string, error) {
	out, err := h.systemctl(ctx, "list-units", "--all", "--plain", "--no-legend", "--full",
		shimScopes, formerShimScopes)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 {
			names = append(names, fields[0])
		}
	}
	return names, nil
}

// journal returns the last lines of the unit's journal, or "" if they can't be read.
func (h Manager) journal(ctx context.Context, lines int) string {
	args := []string{"--no-pager", "-q", "-o", "cat", "-n", strconv.Itoa(lines), "-u", Unit}
	if h.User {
		args[len(args)-2] = "--user-unit"
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	out, _ := run(ctx, "journalctl", args...)
	return out
}
