// Package shim lets attempts outlive the node agent. A shim is a small process of its own: it runs
// attempts with process.Executor on behalf of the agent, and goes on when the agent is replaced,
// crashes or is killed. The next agent takes over what the shim still runs, and gets the true
// outcome of each run.
//
// The agent holds a Client, which is an executor.Executor. The client starts a shim for what the
// agent runs itself. Open takes over the shims of earlier agents, which begin nothing new and end
// with their last run. Programs write into pipes of the shim, which copies their output into the
// files that the agent has opened: none of it passes through the agent. Each slot has a connection
// and a thread of its own, so a run costs one round trip.
//
//	         ┌────────── shim 7 ──────────┐
//	agent ──►│ slot ──fork──► program ──► │──► files stdout, stderr
//	         └────────────────────────────┘
//	agent gone:    runs go on; outcomes are written to their Attempt.Record
//	agent back:    the new agent gets a list of all runs, and their outcomes
//	nobody comes:  after Options.AgentTimeout everything is killed and the shim ends
//	shim gone:     the kernel kills the programs, the agent everything else
//
// No message makes a shim do anything that the agent's user may not do anyway. The socket is for
// that user alone.
package shim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"mlfnode/node/cgroups"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
	"mlfnode/node/processid"
)

// Command is the name of the hidden command that makes this program a shim.
const Command = "shim"

// FormerCommand is the name of Command in earlier versions, which called shims keepers. An agent of
// such a version starts shims by this name, even after the program's file was replaced by a later
// version, and the shims that it has started keep the name.
const FormerCommand = "keeper"

// DefaultAgentTimeout is how long a shim waits for an agent: longer than a restart by systemd
// takes, and shorter than anyone wants programs to run unattended.
const DefaultAgentTimeout = 10 * time.Second

// collectAt is the shim's GC percentage. A shim holds little, so its memory is mostly what the
// garbage collector allows.
const collectAt = 50

// Main is the whole life of a shim, from the arguments after Command to the exit status. Signals
// brings SIGINT, SIGHUP and SIGTERM. Only SIGTERM ends the shim, in good order; a terminal or a
// session sends the others, and means someone else. Messages go to stderr.
func Main(args []string, signals <-chan os.Signal, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	f := flag.NewFlagSet(Command, flag.ContinueOnError)
	f.SetOutput(stderr)
	dir := f.String("dir", "", "folder of the state folder's shims")
	id := f.Int("id", 0, "number of this shim")
	if err := f.Parse(args); err != nil || *dir == "" || *id <= 0 {
		fmt.Fprintln(stderr, "a shim is started by a node agent, with --dir and --id")
		return 2
	}
	debug.SetGCPercent(collectAt)
	ctx, stop := context.WithCancelCause(context.Background()) // as in a main function
	defer stop(nil)
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				stop(errTerminated)
			}
		}
	}()
	if err := serve(ctx, newShimDir(*dir, *id), log.With("shim", *id)); err != nil {
		log.Error("shim ended", "err", err)
		return 1
	}
	return 0
}

// Why a shim ends.
var (
	errTerminated = fmt.Errorf("the shim was told to end: %w", executor.ErrHalted)
	errOrphaned   = fmt.Errorf("no agent came: %w: %w", executor.ErrLost, executor.ErrKill)
	errDone       = errors.New("no run is left")
)

// serve serves until no run is left, no agent comes, or ctx ends.
func serve(ctx context.Context, p shimDir, log *slog.Logger) error {
	var set settings
	if err := p.load(settingsFile, &set); err != nil {
		return err
	}
	// before the executor moves this process
	self := processRecord{V: version, ID: processid.Self(), Cgroups: cgroups.Own()}
	if err := p.save(processFile, self); err != nil {
		return err
	}
	processes, err := process.New(process.Options{
		Token: p.token(set.Token), DieWithAgent: true, Cgroups: process.Cgroups(set.Cgroups), Strays: p.strays(),
	}, log)
	if err != nil {
		return err
	}
	defer processes.Close()
	mux := &executor.Mux{Process: processes}
	k := newServer(set, mux,
		shimInfo{Trees: processes.TreeTracking(), Limits: processes.Limits(), Containers: set.Containers != nil}, log)
	if set.Containers != nil {
		containers := docker.New(*set.Containers, log)
		defer containers.Close()
		mux.Containers = containers
		if err := k.adoptContainers(containers); err != nil {
			return err
		}
	}
	listener, err := p.listen()
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what starting the program has used
	defer context.AfterFunc(ctx, func() { k.stop(context.Cause(ctx)) })()
	log.Info("running", "pid", self.PID, "trees", processes.TreeTracking())
	k.run(listener)
	log.Info("ended", "why", k.endReason)
	if err := processes.Close(); err != nil {
		log.Warn("cgroups left", "err", err)
	}
	return os.RemoveAll(p.path)
}
