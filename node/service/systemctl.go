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

// patience bounds one question to systemd. Starting and stopping has bounds of its own.
const patience = 10 * time.Second

// systemctl runs a command of systemctl on the services of h and gives what it printed.
func (h Home) systemctl(ctx context.Context, args ...string) (string, error) {
	if h.User {
		args = append([]string{"--user"}, args...)
	}
	return run(ctx, "systemctl", append([]string{"--no-pager"}, args...)...)
}

// run runs a program of the host. Its error is what the program said.
func run(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if dir := runtimeDir(); os.Getenv("XDG_RUNTIME_DIR") == "" && dir != "" {
		c.Env = append(c.Env, "XDG_RUNTIME_DIR="+dir)
	}
	var out, complaint bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &out, &complaint, time.Second
	err := c.Run()
	if err == nil {
		return strings.TrimSpace(out.String()), nil
	}
	if said := strings.TrimSpace(complaint.String()); said != "" {
		err = errors.New(strings.ReplaceAll(said, "\n", "; "))
	}
	return strings.TrimSpace(out.String()), fmt.Errorf("%s: %w", program, err)
}

// runtimeDir finds the folder in which this user's systemd listens. A shell that su has started knows none.
func runtimeDir() string {
	dir := filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// properties asks for properties of the unit.
func (h Home) properties(ctx context.Context, names ...string) (map[string]string, error) {
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

// version gives the number of systemd's release, 0 if it says none.
func (h Home) version(ctx context.Context) int {
	out, err := h.systemctl(ctx, "--version") // "systemd 252 (252.39-1)"
	if fields := strings.Fields(out); err == nil && len(fields) > 1 {
		n, _ := strconv.Atoi(fields[1])
		return n
	}
	return 0
}

// scopes lists the existing scopes of shims.
func (h Home) scopes(ctx context.Context) ([]string, error) {
	out, err := h.systemctl(ctx, "list-units", "--all", "--plain", "--no-legend", "--full", shimScopes, formerShimScopes)
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

// journal gives the last lines that the unit has written, or "" where they can't be read.
func (h Home) journal(ctx context.Context, lines int) string {
	args := []string{"--no-pager", "-q", "-o", "cat", "-n", strconv.Itoa(lines), "-u", Unit}
	if h.User {
		args[len(args)-2] = "--user-unit"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, _ := run(ctx, "journalctl", args...)
	return out
}
