package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/durable"
	"mlfnode/node/filelock"
	"mlfnode/node/poll"
	"mlfnode/node/processid"
)

const (
	// firstPause and longestPause bound the pause before an agent is restarted, which doubles each
	// time. Running programs wait for the next agent for shim.DefaultAgentTimeout, which must be
	// long enough for several restarts.
	firstPause   = 200 * time.Millisecond
	longestPause = 2 * time.Second
	// stableAfter is how long an agent must run for the pause to start over at firstPause.
	stableAfter = 30 * time.Second
	// agentStopTimeout bounds the stop of an agent while it does not signal that it is finishing
	// trials.
	agentStopTimeout = 20 * time.Second
)

// supervisor keeps one node running.
type supervisor struct {
	protocol.Layout
	signals <-chan os.Signal
	log     *slog.Logger
	pause   poll.Backoff // before the next restart
}

// decision is what a supervisor does next.
type decision int

const (
	restartAgent decision = iota // start the agent again
	exit                         // end
	restartSelf                  // execute the installed program
	keepRunning                  // leave the agent alone
)

// Supervise runs the supervisor of the node in the root folder: it restarts the agent whenever that
// exits. SIGTERM stops both, SIGHUP is forwarded to the agent, and SIGUSR2 restarts both from the
// installed program, while trials continue.
func Supervise(ctx context.Context, root string, signals <-chan os.Signal, stderr io.Writer) error {
	s := &supervisor{
		Layout: protocol.Layout{Root: root}, signals: signals, log: slog.New(slog.NewTextHandler(stderr, nil)),
		pause: poll.Backoff{First: firstPause, Longest: longestPause},
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Agents of a killed supervisor keep running without one.
	terminate(ctx, func() []process { return agentProcesses(s.Layout) }, unix.SIGUSR2, agentStopTimeout)
	for {
		next := s.runAgent(ctx)
		if next == restartAgent {
			next = s.waitBeforeRestart(ctx)
		}
		switch next {
		case exit:
			return nil
		case restartSelf:
			return s.execProgram()
		}
	}
}

// lockRetryTimeout bounds a restarted supervisor's wait for its own lock.
const lockRetryTimeout = 5 * time.Second

// lock locks the root folder for this supervisor, and records which process it is.
func (s *supervisor) lock(ctx context.Context) (*os.File, error) {
	f, err := filelock.Lock(ctx, supervisorLock(s.Layout), lockRetryTimeout)
	if errors.Is(err, filelock.ErrLocked) {
		return nil, errors.New("another supervisor keeps it running")
	}
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err == nil { // first, so that the process ID never stands alone
		err = durable.WriteFile(supervisorID(s.Layout), []byte(processid.Self().String()+"\n"+host+"\n"), 0o600)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write the supervisor's lock: %w", err)
	}
	return f, nil
}

// superviseArgs are the arguments of a supervisor. They name the command as versions before do: an
// older `mlfnode up` may have installed its own program, which knows no other name.
func superviseArgs(root string) []string {
	return []string{protocol.FormerCommand, SuperviseAction, "--root", root}
}

// execProgram replaces this process with the installed program. It returns only if that fails.
func (s *supervisor) execProgram() error {
	args := append([]string{s.Program()}, superviseArgs(s.Root)...)
	return fmt.Errorf("restart the program: %w", syscall.Exec(s.Program(), args, os.Environ()))
}

// runAgent runs an agent until it exits.
func (s *supervisor) runAgent(ctx context.Context) decision {
	began := time.Now()
	c, err := s.startAgent()
	if err != nil {
		s.log.Error("the agent can't be started", "err", err)
		return restartAgent
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	look := time.NewTicker(logCheckInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := truncateFullLog(s.Layout); err != nil {
				s.log.Warn("the log grows", "err", err)
			}
		case err := <-ended:
			if s.log.Warn("the agent has exited", "err", err); time.Since(began) > stableAfter {
				s.pause.Reset()
			}
			return restartAgent
		case sig := <-s.signals:
			if v := s.handleSignal(c.Process, sig, ended); v != keepRunning {
				return v
			}
		case <-ctx.Done():
			return s.handleSignal(c.Process, syscall.SIGTERM, ended)
		}
	}
}

// startAgent starts the agent, with its output in the log.
func (s *supervisor) startAgent() (*exec.Cmd, error) {
	log, err := openLog(s.Layout)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for fd := 1; fd <= 2; fd++ { // the supervisor's own output goes there, too
		if err := unix.Dup3(int(log.Fd()), fd, 0); err != nil {
			return nil, fmt.Errorf("take over the log: %w", err)
		}
	}
	command := "join"
	if readRecord(s.Layout).Role == grid.Master {
		command = "master"
	}
	c := exec.Command(s.Program(), command, "--config", s.Config(), "--state-dir", s.State())
	c.Dir, c.Stdout, c.Stderr = s.Root, log, log
	return c, c.Start()
}

// handleSignal applies a signal to the agent, and returns what the supervisor does next.
func (s *supervisor) handleSignal(agent *os.Process, sig os.Signal, ended <-chan error) decision {
	pass, v := syscall.SIGTERM, exit
	switch sig {
	case syscall.SIGHUP:
		_ = agent.Signal(sig) // it may just have exited
		return keepRunning
	case syscall.SIGUSR2:
		pass, v = syscall.SIGUSR2, restartSelf
	}
	_ = agent.Signal(pass)
	began, tick := time.Now(), time.NewTicker(node.SignInterval)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return v
		case <-tick.C:
			if stopTimedOut(s.Layout, began, agentStopTimeout) {
				s.log.Warn("the agent did not stop in time and is killed")
				_ = agent.Kill()
				tick.Stop()
			}
		case sig := <-s.signals:
			if sig == syscall.SIGTERM && v == restartSelf {
				v = exit
				_ = agent.Signal(sig)
			}
		}
	}
}

// waitBeforeRestart waits for the pause before the agent is restarted.
func (s *supervisor) waitBeforeRestart(ctx context.Context) decision {
	over := time.NewTimer(s.pause.Next())
	defer over.Stop()
	for {
		select {
		case <-over.C:
			return restartAgent
		case sig := <-s.signals:
			switch sig {
			case syscall.SIGHUP:
			case syscall.SIGUSR2:
				return restartSelf
			default:
				return exit
			}
		case <-ctx.Done():
			return exit
		}
	}
}
