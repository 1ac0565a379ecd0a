package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/node/executor"
	"mlfnode/node/poll"
)

// adoptedRun is a run that an earlier agent has begun.
type adoptedRun struct {
	control *controlConn
	client  *Client
	info    runInfo
	done    chan struct{} // closed when outcome is set

	once      sync.Once
	outcome   executor.Outcome
	claimed   bool // guarded by adoptedRuns.mu
	collected atomic.Bool
}

func (r *adoptedRun) finish(o executor.Outcome) {
	r.once.Do(func() {
		r.outcome = o
		close(r.done)
	})
}

// takeOver makes this agent the agent of the shim in p, or removes what is left of a dead one.
func (c *Client) takeOver(ctx context.Context, p shimDir) error {
	log := c.log.With("shim", p.id)
	l, err := c.connectEarlier(ctx, p, log)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		log.Info("removing what a shim has left behind", "why", err)
		dead := shimProcess{dir: p, token: c.o.Token}
		if err := p.load(processFile, &dead.processRecord); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Warn("the shim's process is unknown", "err", err)
		}
		return dead.remove(ctx, log)
	}
	c.mu.Lock()
	c.earlier = append(c.earlier, l)
	c.mu.Unlock()
	c.adoptedRuns.add(l)
	log.Info("shim taken over", "pid", l.shim.PID, "runs", len(l.adopted))
	return nil
}

// takeOverTimeout limits the wait for a shim that is alive but does not answer.
const takeOverTimeout = 2 * time.Minute

var errNoAnswer = fmt.Errorf("it is alive but did not answer within %s", takeOverTimeout)

// connectEarlier introduces this agent to the shim of an earlier one. It does not give up while the
// shim's process is alive: a process that is stopped or swapped out, as on an overloaded machine
// whose agents get restarted, answers late, and its runs must not die of that.
func (c *Client) connectEarlier(ctx context.Context, p shimDir, log *slog.Logger) (*controlConn, error) {
	ctx, stop := context.WithTimeoutCause(ctx, takeOverTimeout, errNoAnswer)
	defer stop()
	slow := time.AfterFunc(helloTimeout, func() {
		log.Warn("waiting for a shim that does not answer", "limit", takeOverTimeout)
	})
	defer slow.Stop()
	var l *controlConn
	var last error
	_ = poll.Until(ctx, endPoll, func() (bool, error) {
		var self processRecord
		if l, last = connect(ctx, c, p, false); last == nil {
			return true, nil
		}
		if errors.Is(last, errRefuses) || ctx.Err() != nil || p.load(processFile, &self) != nil || !self.Alive() {
			return false, last
		}
		return false, nil
	})
	return l, last
}

// adoptedRuns are the runs of earlier agents, by name.
type adoptedRuns struct {
	log *slog.Logger

	mu     sync.Mutex
	byName map[string]*adoptedRun
}

// add adds the runs of a shim that an earlier agent has used.
func (a *adoptedRuns) add(l *controlConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range l.adopted {
		a.byName[k.info.Name] = k
	}
}

// Adopted returns a func that waits for a run of an earlier agent, by the name of its Attempt.
// resume blocks until the run has ended and returns its true outcome; ending its ctx stops the run
// as in Slot.Run. pid is the id of its program, 0 before the program was started. ok is false if no
// shim has the run, which means that it is not running.
func (a *adoptedRuns) Adopted(name string) (resume func(context.Context) executor.Outcome, pid int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.byName[name]
	if k == nil {
		return nil, 0, false
	}
	k.claimed = true
	return func(ctx context.Context) executor.Outcome { return k.resume(ctx, nil) }, k.info.PID, true
}

// Collected says that the outcome of an adopted run is safe. The shim forgets the run, and ends
// after its last one.
func (a *adoptedRuns) Collected(name string) {
	a.mu.Lock()
	k := a.byName[name]
	delete(a.byName, name)
	a.mu.Unlock()
	if k != nil {
		k.collect()
	}
}

// Disown stops and forgets the runs of earlier agents that Adopted was not asked for.
func (a *adoptedRuns) Disown() {
	a.mu.Lock()
	var unknown []*adoptedRun
	for name, k := range a.byName {
		if !k.claimed {
			unknown = append(unknown, k)
			delete(a.byName, name)
		}
	}
	a.mu.Unlock()
	for _, k := range unknown {
		a.log.Info("stopping an unknown run", "shim", k.control.shim.dir.id, "run", k.info.Name)
		_ = k.control.conn.send(&message{Kind: kindStop, ID: k.info.ID, Cause: causeLost, Kill: true})
		k.collect()
	}
}

// collect makes the shim forget the run. It is recorded first, since the shim may end immediately.
func (r *adoptedRun) collect() {
	r.collected.Store(true)
	_ = r.control.conn.send(&message{Kind: kindCollect, ID: r.info.ID})
}

// resume waits for the run's end. A run that has ended is not left, whatever ctx says. kill cuts
// the grace of a stop short.
func (r *adoptedRun) resume(ctx context.Context, kill <-chan struct{}) executor.Outcome {
	if poll.Closed(r.done) {
		return r.outcome
	}
	if r.info.Container {
		defer r.client.o.holdOutput(r.info.Name)()
	}
	left := make(chan struct{})
	stopping := newStopForwarder(ctx, r.control, r.info.ID, kill, func() { close(left) })
	defer stopping.end()
	select {
	case <-r.done:
		return r.outcome
	case <-left:
		return executor.Outcome{Left: true}
	case <-r.control.ended:
	}
	if poll.Closed(r.done) { // it was the last message
		return r.outcome
	}
	if r.info.Container && r.control.died() {
		return r.client.rejoin(ctx, r.info.Name, kill)
	}
	return r.control.lost(time.Now())
}
