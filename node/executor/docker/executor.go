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
	"mlfnode/node/poll"
	"mlfnode/node/processid"
)

// Options are the settings of an Executor.
type Options struct {
	Settings
	Token string `json:"token"` // identifies the state folder, see process.Options
	Dir   string `json:"dir"`   // folder of the runs, below the state folder; made on demand
}

// Executor runs attempts in containers. It does not look for an engine before the first attempt, so
// a node that runs no containers pays nothing.
//
// Each run has a folder, which exists from before its container is created until after the
// container is removed. So whenever this process dies, the next one finds all containers: see
// Orphans.
type Executor struct {
	o     Options
	log   *slog.Logger
	owner processid.ID
	birth string // makes the names of unnamed runs unique across restarts
	count atomic.Int64

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup // the event stream and removals

	connecting sync.Mutex // held while an engine is looked for
	engine     atomic.Pointer[Engine]
	events     eventWatcher
}

var _ executor.Executor = (*Executor)(nil)

// New returns an executor. The caller closes its slots, then the executor.
func New(o Options, log *slog.Logger) *Executor {
	if o.OutageTimeout <= 0 {
		o.OutageTimeout = DefaultOutageTimeout
	}
	log = log.With("component", "containers")
	ctx, stop := context.WithCancel(context.Background()) // ends in Close
	return &Executor{
		o: o, log: log, owner: processid.Self(), birth: strconv.FormatInt(time.Now().UnixNano(), 36),
		ctx: ctx, stop: stop,
		events: eventWatcher{token: o.Token, log: log, containers: map[string]*containerEvents{}},
	}
}

// Slot returns a slot, which reserves nothing between attempts.
func (x *Executor) Slot() (executor.Slot, error) { return &slot{executor: x}, nil }

// Limits reports whether memory limits are enforced. It is true until an engine is found.
func (x *Executor) Limits() bool {
	e := x.engine.Load()
	return e == nil || e.Limits()
}

// Close stops all background work. The next start finds the containers that could not be removed.
func (x *Executor) Close() error {
	x.stop()
	x.work.Wait()
	if e := x.engine.Load(); e != nil {
		return e.Close()
	}
	return nil
}

// connect returns the engine, and looks for one when none is known. host is the engine's required
// address; "" leaves it to the settings.
func (x *Executor) connect(ctx context.Context, host string) (*Engine, error) {
	x.connecting.Lock()
	defer x.connecting.Unlock()
	if e := x.engine.Load(); e != nil {
		if host != "" && host != e.host {
			return nil, &EngineError{Class: grid.ClassEngine,
				Reason: fmt.Sprintf("the image is with the engine at %s, and this node's containers are with %s", host,
					e.host)}
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
	x.work.Go(func() { x.events.follow(x.ctx, e) })
	x.engine.Store(e)
	return e, nil
}

// slot runs one attempt at a time.
type slot struct {
	executor *Executor
	mu       sync.Mutex // held during Run and Close
	closed   bool
}

// Run implements executor.Slot.
func (s *slot) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
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
	engine, err := x.connect(ctx, a.Container.Engine)
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

// unstarted returns the outcome of an attempt whose container never ran.
func unstarted(ctx context.Context, err error) executor.Outcome {
	if ctx.Err() != nil {
		return executor.Unstarted(ctx)
	}
	var f *EngineError
	if errors.As(err, &f) {
		return executor.Refused(f.Class, f.Reason)
	}
	return executor.Refused(grid.ClassNode, "the container could not be made: "+err.Error())
}

// Close implements executor.Slot.
func (s *slot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// containerName returns the name of a run's container. It is fixed before the container is created,
// so a container is found even if the engine did not answer its creation.
func (o *Options) containerName(run string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, run)
	return "mlfnode-" + o.Token + "-" + clean
}

// Requests to an engine that is unavailable are retried after pauses that double.
const (
	minRetryPause = 100 * time.Millisecond
	maxRetryPause = 5 * time.Second
)

func retryPauses() poll.Backoff { return poll.Backoff{First: minRetryPause, Longest: maxRetryPause} }

// retryWhileUnavailable repeats a request while the engine is unavailable, up to the OutageTimeout.
func (x *Executor) retryWhileUnavailable(ctx context.Context, request func(context.Context) error) error {
	var since time.Time
	for pause := retryPauses(); ; {
		// an abandoned request could still take effect later
		bounded, stop := withCallTimeout(context.WithoutCancel(ctx))
		err := request(bounded)
		stop()
		if err == nil || !isUnavailable(err) || ctx.Err() != nil {
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > x.o.OutageTimeout {
			return &EngineError{Class: grid.ClassEngine,
				Reason: fmt.Sprintf("the container engine did not answer for %s: %v", x.o.OutageTimeout, err)}
		}
		if !pause.Sleep(ctx) {
			return context.Cause(ctx)
		}
	}
}
