package top

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/node/api"
)

const (
	gathering   = 100 * time.Millisecond // events are gathered this long, so that a burst of them causes one redraw
	firstRetry  = 500 * time.Millisecond
	longestWait = 10 * time.Second // between two attempts to reach the node
)

// states are events that have arrived, the oldest first.
type states []api.Events

// streamState is the state of the event stream, sent when it changes.
type streamState struct {
	live bool
	gone bool // the subject of one of the topics is no longer kept
	why  string
}

// errTopics ends a stream because other topics are wanted.
var errTopics = errors.New("other topics are wanted")

// feed keeps the event stream for what is shown open, through every outage.
type feed struct {
	client func() *api.Client
	again  func(context.Context) error
	send   func(tea.Msg)

	mu      sync.Mutex
	topics  []string
	changed chan struct{} // closed when the topics change, or when the user does not want to wait
}

func newFeed(client func() *api.Client, again func(context.Context) error, send func(tea.Msg)) *feed {
	return &feed{client: client, again: again, send: send, changed: make(chan struct{})}
}

// want subscribes to these topics from now on.
func (f *feed) want(topics []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(topics, f.topics) {
		f.topics = slices.Clone(topics)
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// retry reopens the stream immediately.
func (f *feed) retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *feed) wanted() ([]string, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.topics, f.changed
}

// run keeps the stream open until ctx is canceled.
func (f *feed) run(ctx context.Context) {
	alone, wait := false, firstRetry
	for ctx.Err() == nil {
		topics, changed := f.wanted()
		if alone {
			topics = slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return t == "nodes" })
		}
		var err error
		if len(topics) > 0 {
			var lived bool
			if lived, err = f.listen(ctx, topics, changed); lived {
				wait = firstRetry
			}
		}
		var refusal *api.Error
		status := 0
		if errors.As(err, &refusal) {
			status = refusal.Status
		}
		switch {
		case errors.Is(err, errTopics):
			continue
		case status == http.StatusConflict && !alone: // it may be in a cluster later
			alone = true
			continue
		case status == http.StatusNotFound, status == http.StatusBadRequest: // the name does not exist
			f.send(streamState{live: true, gone: true, why: err.Error()})
		case err != nil && ctx.Err() == nil:
			alone = false
			f.send(streamState{why: reason(err)})
		}
		if pause(ctx, wait, changed) && errors.Is(err, api.ErrLost) {
			if err := f.again(ctx); err != nil {
				f.send(streamState{why: reason(err)})
			}
		}
		wait = min(2*wait, longestWait)
	}
}

// pause waits until the time has passed or other topics are wanted. It reports false if ctx was
// canceled.
func pause(ctx context.Context, wait time.Duration, changed <-chan struct{}) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// listen passes events on until the stream ends or other topics are wanted, and reports whether the
// stream was open.
func (f *feed) listen(ctx context.Context, topics []string, changed <-chan struct{}) (lived bool, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop(nil)
	events := make(chan api.Events)
	watching.Go(func() { f.gather(ctx, events, changed, stop) })
	for e, err := range f.client().Events(ctx, topics) {
		if err != nil {
			return lived, err
		}
		if e.Bye != nil {
			return lived, errors.Join(errors.New(e.Bye.Reason), api.ErrLost)
		}
		if !lived {
			lived = true
			f.send(streamState{live: true})
		}
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	return lived, api.ErrLost
}

// gather sends events on; events that arrive together become one message.
func (f *feed) gather(ctx context.Context, events <-chan api.Events, changed <-chan struct{},
	stop context.CancelCauseFunc) {
	var all states
	t := time.NewTimer(gathering)
	t.Stop()
	for {
		select {
		case e := <-events:
			if all = append(all, e); len(all) == 1 {
				t.Reset(gathering)
			}
		case <-t.C:
			f.send(all)
			all = nil
		case <-changed:
			changed = nil
			stop(errTopics)
		case <-ctx.Done():
			return
		}
	}
}

// reason describes in one line why the node can't be reached.
func reason(err error) string {
	var refusal *api.Error
	var request *url.Error
	switch {
	case errors.As(err, &refusal):
		return refusal.Msg
	case errors.As(err, &request):
		err = request.Err // without the URL, which means nothing to users
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(text, api.ErrLost.Error()+": ")
}
