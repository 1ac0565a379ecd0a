package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mlfnode/node/poll"
)

const (
	// launchTimeout limits the start of a shim, launchPoll is the time between attempts to connect
	// to it.
	launchTimeout = 20 * time.Second
	launchPoll    = 2 * time.Millisecond
)

// launch starts a shim and introduces this agent to it.
func (c *Client) launch(ctx context.Context) (*controlConn, error) {
	p, err := c.o.createDir()
	if err != nil {
		return nil, err
	}
	l, err := c.launchIn(ctx, p)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a shim: %w", err), os.RemoveAll(p.path))
	}
	c.log.Info("shim started", "shim", p.id, "pid", l.shim.PID, "trees", l.info.Trees)
	return l, nil
}

// createDir creates the folder of the next shim. Numbers are not reused: an old shim that is late
// to end must not mistake a new shim's folder for its own.
func (o *Options) createDir() (shimDir, error) {
	all, err := shimDirsIn(o.Dir)
	if err != nil {
		return shimDir{}, err
	}
	file := filepath.Join(o.Dir, "last")
	text, _ := os.ReadFile(file)
	last, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 without the file
	if n := len(all); n > 0 {
		last = max(last, all[n-1].id)
	}
	p := newShimDir(o.Dir, last+1)
	if err := os.WriteFile(file, strconv.AppendInt(nil, int64(p.id), 10), 0o600); err != nil {
		return shimDir{}, fmt.Errorf("number the shim: %w", err)
	}
	if err := os.Mkdir(p.path, 0o700); err != nil {
		return shimDir{}, fmt.Errorf("make the shim's folder: %w", err)
	}
	set := settings{V: version, Token: o.Token, AgentTimeout: o.AgentTimeout, Cgroups: string(o.Cgroups),
		Containers: o.Containers}
	return p, p.save(settingsFile, set)
}

func (c *Client) launchIn(ctx context.Context, p shimDir) (*controlConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, launchTimeout,
		fmt.Errorf("it did not answer within %s", launchTimeout))
	defer cancel()
	log, err := os.OpenFile(filepath.Join(p.path, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var argv []string
	if c.o.Wrap != nil {
		argv = c.o.Wrap()
	}
	argv = append(argv, c.o.program(), Command, "--dir", c.o.Dir, "--id", strconv.Itoa(p.id))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, c.o.Env
	cmd.Dir = "/" // so that no folder is kept from being unmounted
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() { // ends with the shim, possibly after this Client: the shim must be reaped
		defer close(exited)
		_ = cmd.Wait()
	}()
	var l *controlConn
	err = poll.Until(ctx, launchPoll, func() (bool, error) { // until it answers
		var err error
		if l, err = connect(ctx, c, p, true); err == nil || errors.Is(err, errRefuses) || ctx.Err() != nil {
			return true, err
		}
		if poll.Closed(exited) {
			return false, errors.New(exitReason(p))
		}
		return false, nil
	})
	if err != nil {
		_ = cmd.Process.Kill()
		<-exited
	}
	return l, err
}

// exitReason says why a shim ended immediately: the error that it has logged, or the last lines of
// its log.
func exitReason(p shimDir) string {
	b, _ := os.ReadFile(filepath.Join(p.path, logFile))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range slices.Backward(lines) {
		if _, cause, ok := strings.Cut(line, ` err=`); ok && strings.Contains(line, "level=ERROR") {
			if text, err := strconv.Unquote(cause); err == nil {
				cause = text
			}
			return "it ended immediately: " + cause
		}
	}
	words := strings.Join(lines[max(len(lines)-lastLines, 0):], "; ")
	if words == "" {
		return "it ended immediately"
	}
	return "it ended immediately: " + words
}

// lastLines is how many lines of a shim's log are shown if it contains no error.
const lastLines = 3
