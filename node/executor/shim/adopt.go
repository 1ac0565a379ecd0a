package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"mlfnode/node/executor"
)

// kept is a run that an earlier agent has begun.
type kept struct {
	link   *link
	client *Client
	held   held
	over   chan struct{} // closed when outcome is set

	once      sync.Once
	outcome   executor.Outcome
	asked     bool // guarded by the client
	collected bool // guarded by the link
}

func (k *kept) end(o executor.Outcome) {
	k.once.Do(func() {
		k.outcome = o
		close(k.over)
	})
}

// takeOver makes this agent the one of the shim in p, or removes what is left of a dead one.
func (c *Client) takeOver(ctx context.Context, p place) error {
	log := c.log.With("shim", p.id)
	l, err := c.reach(ctx, p, log)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		log.Info("what a shim has left is removed", "why", err)
		var self processRecord
		if err := p.load(processFile, &self); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Warn("it can't be told which process it was", "err", err)
		}
		return clear(ctx, p, self, c.o.Token, log)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.earlier = append(c.earlier, l)
	for _, k := range l.kept {
		c.adopted[k.held.Name] = k
	}
	log.Info("shim taken over", "pid", l.self.PID, "runs", len(l.kept))
	return nil
}

// takeTime bounds the wait for a shim that lives and does not answer.
const takeTime = 2 * time.Minute

var errSilent = fmt.Errorf("it lives and did not answer within %s", takeTime)

// reach introduces this agent to the shim of an earlier one. As long as that process lives it is not given up: one that is stopped
// or swapped out, as on a machine on which agents get restarted, answers late, and what it runs must not die of that.
func (c *Client) reach(ctx context.Context, p place, log *slog.Logger) (*link, error) {
	ctx, stop := context.WithTimeoutCause(ctx, takeTime, errSilent)
	defer stop()
	slow := time.AfterFunc(greetTime, func() { log.Warn("waiting for a shim that does not answer", "limit", takeTime) })
	defer slow.Stop()
	tick := time.NewTicker(endLook)
	defer tick.Stop()
	for {
		l, err := c.connect(ctx, p, false)
		var self processRecord
		if err == nil || errors.Is(err, errRefuses) || ctx.Err() != nil || p.load(processFile, &self) != nil || !self.alive() {
			return l, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Adopted gives a way to wait for a run of an earlier agent, by the name that its Attempt had. The func blocks until the
// run has ended, which may be at once, and gives its true outcome; ending ctx stops the run as it does in Slot.Run. pid is that of its
// program, 0 before it has started one. ok is false when no shim has the run: then it is not running.
func (c *Client) Adopted(name string) (resume func(context.Context) executor.Outcome, pid int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.adopted[name]
	if k == nil {
		return nil, 0, false
	}
	k.asked = true
	return k.resume, k.held.PID, true
}

// Collected says that the outcome of an adopted run is safe: the shim forgets it, and ends after the last.
func (c *Client) Collected(name string) {
	c.mu.Lock()
	k := c.adopted[name]
	delete(c.adopted, name)
	c.mu.Unlock()
	if k != nil {
		k.collect()
	}
}

// Disown stops and forgets the runs of earlier agents that nobody has asked for.
func (c *Client) Disown() {
	c.mu.Lock()
	var unknown []*kept
	for name, k := range c.adopted {
		if !k.asked {
			unknown = append(unknown, k)
			delete(c.adopted, name)
		}
	}
	c.mu.Unlock()
	for _, k := range unknown {
		c.log.Info("a run that nobody knows is stopped", "shim", k.link.place.id, "run", k.held.Name)
		_ = k.link.send(&message{Kind: kindStop, ID: k.held.ID, Cause: causeLost, Kill: true})
		k.collect()
	}
}

// collect has the shim forget the run. Noted first: the shim may end at once.
func (k *kept) collect() {
	k.link.mu.Lock()
	k.collected = true
	k.link.mu.Unlock()
	_ = k.link.send(&message{Kind: kindCollect, ID: k.held.ID})
}

// resume waits for the run's end. What has ended is not left, whatever ctx says.
func (k *kept) resume(ctx context.Context) executor.Outcome { return k.resumeKilled(ctx, nil) }

// resumeKilled is resume with what cuts the grace of a stop short.
func (k *kept) resumeKilled(ctx context.Context, kill <-chan struct{}) executor.Outcome {
	if k.isOver() {
		return k.outcome
	}
	if k.held.Box {
		defer k.client.holdOutput(k.held.Name)()
	}
	left := make(chan struct{})
	stopping := newStopping(ctx, k.link, k.held.ID, kill, func() { close(left) })
	defer stopping.end()
	select {
	case <-k.over:
		return k.outcome
	case <-left:
		return executor.Outcome{Left: true}
	case <-k.link.ended:
	}
	if k.isOver() { // it was the last message
		return k.outcome
	}
	if k.held.Box && k.link.died() {
		return k.client.rejoin(ctx, k.held.Name, kill)
	}
	return k.link.lost(time.Now())
}

func (k *kept) isOver() bool {
	select {
	case <-k.over:
		return true
	default:
		return false
	}
}
