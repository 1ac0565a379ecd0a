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
	"mlfnode/node"
	"mlfnode/node/durable"
	"mlfnode/node/processid"
)

const (
	// firstPause and longestPause are between the ends of agents and their next starts; the pause doubles. Running programs wait for the
	// next agent for shim.DefaultPatience, in which several must have been started.
	firstPause   = 200 * time.Millisecond
	longestPause = 2 * time.Second
	// settled is how long an agent must have run for the next pause to be the first one again.
	settled = 30 * time.Second
	// endPatience is how long an agent may take to end in good order, while it does not say that it sees trials to their ends.
	endPatience = 20 * time.Second
)

// watch keeps one node running.
type watch struct {
	protocol.Layout
	signals <-chan os.Signal
	log     *slog.Logger
	pause   time.Duration
}

// verdict is what a supervisor is to do next.
type verdict int

const (
	again  verdict = iota // start the agent again
	leave                 // end
	anew                  // start this program anew, as it lies there now
	longer                // go on with what is under way
)

// Run is the supervisor of the node in the root folder: it starts the agent again whenever that ends. SIGTERM ends both, SIGHUP
// is passed on, and SIGUSR2 restarts both, from the program as it is then, while trials continue.
func Run(ctx context.Context, root string, signals <-chan os.Signal, stderr io.Writer) error {
	w := &watch{Layout: protocol.Layout{Root: root}, signals: signals, log: slog.New(slog.NewTextHandler(stderr, nil)), pause: firstPause}
	lock, err := w.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Agents of a supervisor that was killed go on without one.
	end(ctx, func() []process { return agents(w.Layout) }, unix.SIGUSR2, endPatience)
	for {
		switch v := w.life(ctx); v {
		case leave:
			return nil
		case anew:
			return w.renew()
		}
		switch w.rest(ctx) {
		case leave:
			return nil
		case anew:
			return w.renew()
		}
	}
}

// ownPatience is how long a restarted supervisor waits for its own lock.
const ownPatience = 5 * time.Second

// lock takes the root folder for this supervisor and says which process it is.
func (w *watch) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(supervisorLock(w.Layout), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's lock: %w", err)
	}
	if !until(ctx, ownPatience, func() bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }) {
		f.Close()
		return nil, errors.New("another supervisor keeps it running")
	}
	host, err := os.Hostname()
	if err == nil { // first, so that the number is never there without what tells whose it is
		err = durable.WriteFile(supervisorID(w.Layout), []byte(processid.Self().String()+"\n"+host+"\n"), 0o600)
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

// renew replaces this process by the program as it lies there now. It only returns when that fails.
func (w *watch) renew() error {
	args := []string{w.Program(), protocol.Command, Supervise, "--root", w.Root}
	return fmt.Errorf("restart the program: %w", syscall.Exec(w.Program(), args, os.Environ()))
}

// life runs an agent until it ends.
func (w *watch) life(ctx context.Context) verdict {
	began := time.Now()
	c, err := w.start()
	if err != nil {
		w.log.Error("the agent can't be started", "err", err)
		return again
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	look := time.NewTicker(logLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := putLogAside(w.Layout); err != nil {
				w.log.Warn("the log grows", "err", err)
			}
		case err := <-ended:
			if w.log.Warn("the agent has ended", "err", err); time.Since(began) > settled {
				w.pause = firstPause
			}
			return again
		case sig := <-w.signals:
			if v := w.obey(c.Process, sig, ended); v != longer {
				return v
			}
		case <-ctx.Done():
			return w.obey(c.Process, syscall.SIGTERM, ended)
		}
	}
}

// start starts the agent, with its output in the log.
func (w *watch) start() (*exec.Cmd, error) {
	log, err := openLog(w.Layout)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for fd := 1; fd <= 2; fd++ { // what the supervisor itself says goes there, too
		if err := unix.Dup3(int(log.Fd()), fd, 0); err != nil {
			return nil, fmt.Errorf("take over the log: %w", err)
		}
	}
	command := "join"
	if readRecord(w.Layout).Role == "master" {
		command = "master"
	}
	c := exec.Command(w.Program(), command, "--config", w.Config(), "--state-dir", w.State())
	c.Dir, c.Stdout, c.Stderr = w.Root, log, log
	return c, c.Start()
}

// obey does what a signal asks of the agent.
func (w *watch) obey(agent *os.Process, sig os.Signal, ended <-chan error) verdict {
	pass, v := syscall.SIGTERM, leave
	switch sig {
	case syscall.SIGHUP:
		_ = agent.Signal(sig) // it may just have ended
		return longer
	case syscall.SIGUSR2:
		pass, v = syscall.SIGUSR2, anew
	}
	_ = agent.Signal(pass)
	began, tick := time.Now(), time.NewTicker(node.SignInterval)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return v
		case <-tick.C:
			if hangs(w.Layout, began, endPatience) {
				w.log.Warn("the agent does not end and is killed")
				_ = agent.Kill()
				tick.Stop()
			}
		case sig := <-w.signals:
			if sig == syscall.SIGTERM && v == anew {
				v = leave
				_ = agent.Signal(sig)
			}
		}
	}
}

// rest waits until the agent is started again.
func (w *watch) rest(ctx context.Context) verdict {
	over := time.NewTimer(w.pause)
	defer over.Stop()
	w.pause = min(2*w.pause, longestPause)
	for {
		select {
		case <-over.C:
			return again
		case sig := <-w.signals:
			switch sig {
			case syscall.SIGHUP:
			case syscall.SIGUSR2:
				return anew
			default:
				return leave
			}
		case <-ctx.Done():
			return leave
		}
	}
}
