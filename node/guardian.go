package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"mlfnode/node/config"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
)

// ReapCommand is the name of the hidden command that ends what a dead node left running.
const ReapCommand = "reap"

const (
	// reapTime bounds that command.
	reapTime = time.Minute
	// dismissTime bounds the wait for a guardian that is no longer needed.
	dismissTime = time.Second
)

// guarded is the executor of a node whose programs must end with it. When the node dies, however
// that happens, the kernel kills its programs (PR_SET_PDEATHSIG), and the guardian kills what they
// have started.
type guarded struct {
	*process.Executor
	guard func() error // starts the guardian, the first time
}

// Slot returns a new slot, with a guardian for what it will run.
func (g *guarded) Slot() (executor.Slot, error) {
	if err := g.guard(); err != nil {
		return nil, fmt.Errorf("make slot: %w", err)
	}
	return g.Executor.Slot()
}

// guardScript waits until the node dismisses it or is gone; in the second case it becomes this
// program. It is a shell script because a shell takes little memory. It names the program by a
// descriptor, since the file may have been replaced by then.
const guardScript = `trap '' HUP INT TERM; cd /; if read -r _; then exit 0; fi; exec /proc/self/fd/3 "$@"`

// newGuarded returns the executor, and a func that dismisses the guardian when the node ends
// normally.
func newGuarded(p *process.Executor, cfg *config.Config, cgroups string) (_ *guarded, dismiss func()) {
	var mu sync.Mutex
	var line *os.File // the guardian reads what the node writes here; only the node has it open
	ended := make(chan struct{})
	guard := func() error {
		mu.Lock()
		defer mu.Unlock()
		if line != nil {
			return nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			return errors.Join(err, w.Close())
		}
		defer self.Close()
		cmd := exec.Command("/bin/sh", "-c", guardScript, "guardian", ReapCommand, "--dir", cfg.StateDir, "--cgroups",
			cgroups, "--engine", cfg.Engine.Socket)
		cmd.Stdin, cmd.ExtraFiles = r, []*os.File{self}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal that goes away must not reach it
		err = p.StartHelper(func() (int, error) {
			if err := cmd.Start(); err != nil {
				return 0, err
			}
			return cmd.Process.Pid, nil
		})
		if err != nil { // then the next start of a node stops what a killed node has started
			cfg.Logger.Warn("processes that programs start may outlive this node if it is killed", "err", err)
			close(ended)
		} else {
			go func() { // ends with the guardian
				defer close(ended)
				_ = cmd.Wait()
			}()
		}
		line = w
		return nil
	}
	return &guarded{p, guard}, func() {
		mu.Lock()
		defer mu.Unlock()
		if line == nil {
			return
		}
		_, _ = line.WriteString("\n") // the guardian may be gone already
		line.Close()
		select {
		case <-ended:
		case <-time.After(dismissTime):
		}
	}
}

// straysFile is where a node that stands alone records processes that have left the tree of their
// program.
func straysFile(stateDir string) string { return filepath.Join(stateDir, "strays.json") }

// ReapOrphans is the hidden command, from its arguments to the exit status: it kills the processes
// that the dead node of a state folder left. If another node has the folder by now, that node has
// already done so.
func ReapOrphans(args []string, stderr io.Writer) int {
	f := flag.NewFlagSet(ReapCommand, flag.ContinueOnError)
	f.SetOutput(stderr)
	dir := f.String("dir", "", "state folder of the node")
	cgroups := f.String("cgroups", "", "the cgroups in which it ran")
	engine := f.String("engine", "", "the socket of its container engine")
	if err := f.Parse(args); err != nil || *dir == "" {
		return 2
	}
	lock, err := lockState(*dir)
	if err != nil {
		return 0
	}
	defer lock.Close()
	token, err := loadToken(filepath.Join(*dir, "token"))
	if err != nil {
		return 1
	}
	ctx, stop := context.WithTimeout(context.Background(), reapTime) // this is a main function
	defer stop()
	log := slog.New(slog.DiscardHandler)
	_, err = process.Reap(ctx, process.DeadAgent{Token: token, Cgroups: *cgroups, Strays: straysFile(*dir)}, log)
	containers := docker.Options{Settings: docker.Settings{Socket: *engine}, Token: token, Dir: containersDir(*dir)}
	if _, removeErr := docker.Reap(ctx, containers, log); err != nil || removeErr != nil {
		return 1
	}
	return 0
}
