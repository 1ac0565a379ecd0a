package docker

import (
	"context"
	"strconv"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sys/unix"
)

// evidence is what the engine's events say about one container. It is guarded by the executor.
type evidence struct {
	killed   time.Time   // when somebody else sent it a signal that ends programs, zero if nobody did
	signal   unix.Signal // 0 where the engine does not tell, which is Podman
	oom      bool
	breaks   int           // of the event stream when the run began
	died     chan struct{} // closed by the event that it has ended
	signaled bool          // died is closed
}

// followEvents keeps up one stream of events of all containers of this state folder. A stream that breaks goes on where it broke,
// as far as the engine remembers.
func (x *Executor) followEvents(e *Engine) {
	since := time.Now()
	for pause := firstPause; x.ctx.Err() == nil; pause = min(2*pause, longestPause) {
		messages, errs := e.client.Events(x.ctx, events.ListOptions{
			Since:   strconv.FormatInt(since.Unix(), 10) + "." + strconv.FormatInt(int64(since.Nanosecond())+1e9, 10)[1:],
			Filters: filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelToken+"="+x.o.Token)),
		})
		began := time.Now()
		var err error
		for err == nil {
			select {
			case m := <-messages:
				since = time.Unix(0, m.TimeNano+1)
				x.heard(m)
			case err = <-errs:
			}
		}
		if x.ctx.Err() != nil {
			return
		}
		x.mu.Lock()
		x.breaks++
		x.mu.Unlock()
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		x.log.Warn("the container engine's events break off", "err", err)
		if sleep(x.ctx, pause) {
			bounded, stop := call(x.ctx)
			_ = e.learn(bounded) // another version may have come
			stop()
		}
	}
}

// heard notes an event with the run that it is about.
func (x *Executor) heard(m events.Message) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.runs[m.Actor.Attributes["name"]]
	if r == nil {
		return
	}
	switch m.Action {
	case events.ActionKill:
		if text, told := m.Actor.Attributes["signal"]; !told || ends(signalOf(text)) {
			r.evidence.killed, r.evidence.signal = time.Unix(0, m.TimeNano), signalOf(text)
		}
	case events.ActionOOM:
		r.evidence.oom = true
	case events.ActionDie, events.ActionDestroy:
		if !r.evidence.signaled {
			r.evidence.signaled = true
			close(r.evidence.died)
		}
	}
}

// signalOf reads a signal by its number or its name.
func signalOf(text string) unix.Signal {
	if n, err := strconv.Atoi(text); err == nil {
		return unix.Signal(n)
	}
	return unix.SignalNum(text)
}

// ends reports whether a signal is sent to end a program.
func ends(s unix.Signal) bool {
	switch s {
	case unix.SIGTERM, unix.SIGKILL, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGABRT:
		return true
	}
	return false
}

// eventTime bounds the wait for the event of an end that is known already.
const eventTime = 2 * time.Second

// heardOf gives what the events say once the container has ended. It waits a little for the last of them.
func (r *run) heardOf(ctx context.Context) evidence {
	limit, stop := context.WithTimeout(ctx, eventTime)
	defer stop()
	select {
	case <-r.evidence.died:
	case <-limit.Done():
	}
	r.x.mu.Lock()
	defer r.x.mu.Unlock()
	return r.evidence
}
