package shim

import (
	"context"
	"log/slog"
	"os"
	"time"

	"mlfnode/node/executor/process"
	"mlfnode/node/poll"
)

// shimProcess is a shim as an agent knows it: its folder and its process.
type shimProcess struct {
	processRecord
	dir   shimDir
	token string // of the state folder
}

const (
	endPoll = 5 * time.Millisecond
	// endTimeout is how long a shim whose socket is closed may take to stop what it runs and end by
	// itself.
	endTimeout = 30 * time.Second
)

// remove waits for the end of a shim that no longer answers, kills it if necessary, and removes it
// with everything that it ran.
func (p *shimProcess) remove(ctx context.Context, log *slog.Logger) error {
	limit := time.Now().Add(endTimeout)
	err := poll.Until(ctx, endPoll, func() (bool, error) {
		alive := p.Alive()
		if alive && time.Now().After(limit) {
			log.Warn("the shim does not end; it is killed")
			p.kill()
		}
		return !alive, nil
	})
	if err != nil {
		return err
	}
	dead := process.DeadAgent{Token: p.dir.token(p.token), Cgroups: p.Cgroups, Strays: p.dir.strays()}
	if _, err := process.Reap(ctx, dead, log); err != nil {
		return err
	}
	return os.RemoveAll(p.dir.path)
}
