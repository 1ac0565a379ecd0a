package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/processid"
)

// Options are the settings of an Executor.
type Options struct {
	Settings
	Token string `json:"token"` // of the state folder, see process.Options
	Dir   string `json:"dir"`   // folder of the runs, below the state folder; made when it is needed
}

// Executor runs attempts in containers. It does not look for an engine before the first attempt, so a node that runs no containers
// pays nothing.
//
// Each run has a folder, which exists from before its container is created until after that is removed. So whatever moment this
// process dies, the next one finds what there may be of containers: see Left.
type Executor struct {
	o     Options
	log   *slog.Logger
	owner processid.ID
	birth string // makes names of nameless runs unique over restarts
	count atomic.Int64

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup // the event stream and removals

	opening sync.Mutex // held while an engine is looked for
	engine  atomic.Pointer[Engine]

	mu     sync.Mutex
	runs   map[string]*run // by the name of the container
	breaks int             // of the event stream
}

var _ executor.Executor = (*Executor)(nil)

// New makes an executor. The caller closes it, after its slots.
func New(o Options, log *slog.Logger) *Executor {
	if o.Patience <= 0 {
		o.Patience = DefaultPatience
	}
	ctx, stop := context.WithCancel(context.Background()) // ends in Close
	return &Executor{
		o: o, log: log.With("component", "containers"), owner: processid.Self(), ctx: ctx, stop: stop, runs: map[string]*run{},
		birth: strconv.FormatInt(time.Now().UnixNano(), 36),
	}
}

// Slot makes a slot. It holds nothing between attempts.
func (x *Executor) Slot() (executor.Slot, error) { return &slot{executor: x}, nil }

// Limits reports whether memory limits are enforced; true while no engine is known.
func (x *Executor) Limits() bool {
	e := x.engine.Load()
	return e == nil || e.Limits()
}

// Close ends what goes on in the background. What could not be removed yet is found by the next start.
func (x *Executor) Close() error {
	x.stop()
	x.work.Wait()
	if e := x.engine.Load(); e != nil {
		return e.Close()
	}
	return nil
}

// connected gives the engine, and looks for one when none is known. host is where it must be; "" leaves that to the settings.
func (x *Executor) connected(ctx context.Context, host string) (*Engine, error) {
	x.opening.Lock()
	defer x.opening.Unlock()
	if e := x.engine.Load(); e != nil {
		if host != "" && host != e.host {
			return nil, &Fault{Class: grid.ClassEngine, Reason: fmt.Sprintf("the image is with the engine at %s, and this node's containers are with %s", host, e.host)}
		}
		return e, nil
	}
	s := x.o.Settings
	s.Socket = cmp.Or(host, s.Socket)
	e, err := Connect(ctx, s)
	if err != nil {
		return nil, err
	}
	x.log.Info("container engine found", "engine", e.String())
	if !e.Limits() {
		x.log.Warn("the engine does not enforce memory limits")
	}
	x.removeStrays(ctx, e)
	x.work.Go(func() { x.followEvents(e) })
	x.engine.Store(e)
	return e, nil
}

// slot runs one attempt at a time.
type slot struct {
	executor *Executor
	run      sync.Mutex // held during Run and Close
	shut     bool
}

// Run implements executor.Slot.
func (s *slot) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.run.Lock()
	defer s.run.Unlock()
	switch {
	case s.shut:
		return executor.Refused(grid.ClassStart, "the slot is closed")
	case ctx.Err() != nil:
		return executor.Unstarted(ctx)
	case a.Container == nil:
		return executor.Refused(grid.ClassNode, "no container is described")
	case len(a.Argv) == 0:
		o := executor.Refused(grid.ClassStart, "the command is empty; name a program")
		o.ExitCode = exitNotFound
		return o
	}
	if o, ok := executor.CheckArguments(a); !ok {
		return o
	}
	x := s.executor
	engine, err := x.connected(ctx, a.Container.Engine)
	if err != nil {
		return unstarted(ctx, err)
	}
	r, err := x.newRun(engine, a)
	if err != nil {
		return executor.Refused(grid.ClassNode, err.Error())
	}
	defer r.finish()
	if err := r.launch(ctx); err != nil {
		return unstarted(ctx, err)
	}
	return r.follow(ctx, a.Kill)
}

// unstarted is the outcome of an attempt whose container did not come to run.
func unstarted(ctx context.Context, err error) executor.Outcome {
	if ctx.Err() != nil {
		return executor.Unstarted(ctx)
	}
	var f *Fault
	if errors.As(err, &f) {
		return executor.Refused(f.Class, f.Reason)
	}
	return executor.Refused(grid.ClassNode, "the container could not be made: "+err.Error())
}

// Close implements executor.Slot.
func (s *slot) Close() error {
	s.run.Lock()
	defer s.run.Unlock()
	s.shut = true
	return nil
}

// containerName names the container of a run. It is known before the container is made, so one is found whose creation was not
// answered.
func (o *Options) containerName(run string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, run)
	return "mlfnode-" + o.Token + "-" + clean
}

// Retries of requests to an engine that is away: from the first pause to the longest, doubling.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// patiently makes a request again while the engine is away, for as long as the executor's patience.
func (x *Executor) patiently(ctx context.Context, request func(context.Context) error) error {
	var since time.Time
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		bounded, stop := call(context.WithoutCancel(ctx)) // one that was given up could still be done afterwards
		err := request(bounded)
		stop()
		if err == nil || !isAway(err) || ctx.Err() != nil {
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > x.o.Patience {
			return &Fault{Class: grid.ClassEngine, Reason: fmt.Sprintf("the container engine did not answer for %s: %v", x.o.Patience, err)}
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// sleep waits, and reports false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
