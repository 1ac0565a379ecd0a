package docker

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"golang.org/x/sys/unix"
)

// containerEvents is what the engine's events say about one container.
type containerEvents struct {
	signaledAt time.Time   // when a third party sent it a terminating signal; zero if none did
	signal     unix.Signal // 0 where the engine does not name it, as with Podman
	oom        bool
	breaks     int           // eventWatcher.breaks when the run began
	ended      chan struct{} // closed by the event that reports the container's end
}

// eventWatcher follows the events of all containers of one state folder.
type eventWatcher struct {
	token string
	log   *slog.Logger

	mu         sync.Mutex
	containers map[string]*containerEvents // by container name; mu guards what they point to as well
	breaks     int                         // how often the event stream has broken off
}

// add starts to record the events of a container.
func (w *eventWatcher) add(name string) *containerEvents {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &containerEvents{breaks: w.breaks, ended: make(chan struct{})}
	w.containers[name] = c
	return c
}

// remove stops recording the events of a container.
func (w *eventWatcher) remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.containers, name)
}

// follow keeps one event stream open until ctx ends. A broken stream resumes where it broke off, as
// far back as the engine remembers.
func (w *eventWatcher) follow(ctx context.Context, e *Engine) {
	since := time.Now()
	for pause := retryPauses(); ctx.Err() == nil; {
		messages, errs := e.client.Events(ctx, events.ListOptions{
			Since: strconv.FormatInt(since.Unix(), 10) + "." + strconv.FormatInt(int64(since.Nanosecond())+1e9, 10)[1:],
			Filters: filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)),
				filters.Arg("label", labelToken+"="+w.token)),
		})
		began := time.Now()
		var err error
		for err == nil {
			select {
			case m := <-messages:
				since = time.Unix(0, m.TimeNano+1)
				w.record(m)
			case err = <-errs:
			}
		}
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.breaks++
		w.mu.Unlock()
		if time.Since(began) > maxRetryPause {
			pause.Reset()
		}
		w.log.Warn("the container engine's event stream broke off", "err", err)
		if pause.Sleep(ctx) {
			bounded, stop := withCallTimeout(ctx)
			_ = e.refresh(bounded) // the engine may have been upgraded
			stop()
		}
	}
}

// record adds an event to those of its container.
func (w *eventWatcher) record(m events.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[m.Actor.Attributes["name"]]
	if c == nil {
		return
	}
	switch m.Action {
	case events.ActionKill:
		if name, ok := m.Actor.Attributes["signal"]; !ok || isTerminating(parseSignal(name)) {
			c.signaledAt, c.signal = time.Unix(0, m.TimeNano), parseSignal(name)
		}
	case events.ActionOOM:
		c.oom = true
	case events.ActionDie, events.ActionDestroy:
		select {
		case <-c.ended:
		default:
			close(c.ended)
		}
	}
}

// lastEventTimeout bounds the wait for the event of an end that is known already.
const lastEventTimeout = 2 * time.Second

// snapshot returns what the events say about a container that has ended. It waits briefly for the
// last of them.
func (w *eventWatcher) snapshot(ctx context.Context, c *containerEvents) containerEvents {
	limit, stop := context.WithTimeout(ctx, lastEventTimeout)
	defer stop()
	select {
	case <-c.ended:
	case <-limit.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return *c
}

// sawRestart reports whether a container's end looks like that of its engine: the event stream has
// broken off since the container's run began, and the container was killed meanwhile.
func (w *eventWatcher) sawRestart(state *container.State, c containerEvents) bool {
	w.mu.Lock()
	breaks := w.breaks
	w.mu.Unlock()
	killed := []int{128 + int(unix.SIGKILL), 128 + int(unix.SIGTERM), exitFoundDead}
	return breaks > c.breaks && (slices.Contains(killed, state.ExitCode) || state.Status == container.StateDead)
}

// assumeBreak has sawRestart assume a break for a container that ended before this process followed
// it.
func (w *eventWatcher) assumeBreak(c *containerEvents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.breaks = -1
}

// parseSignal reads a signal's number or name.
func parseSignal(text string) unix.Signal {
	if n, err := strconv.Atoi(text); err == nil {
		return unix.Signal(n)
	}
	return unix.SignalNum(text)
}

// isTerminating reports whether a signal is one that is sent to end a program.
func isTerminating(s unix.Signal) bool {
	switch s {
	case unix.SIGTERM, unix.SIGKILL, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGABRT:
		return true
	}
	return false
}
