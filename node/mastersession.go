package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"syscall"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
)

// reachTime bounds the first call to a master. A machine that refuses the connection is asked again
// for restartTime: a master that is restarted is back sooner.
const (
	reachTime   = 10 * time.Second
	restartTime = 5 * time.Second
)

// Reach opens a session with the master of the contact.
func Reach(ctx context.Context, c *Contact) (*Session, error) {
	return reachMaster(ctx, c, 0, func() {})
}

// ReachAgain is like Reach, but waits some seconds for a master that is being restarted, and calls
// notice once that takes longer.
func ReachAgain(ctx context.Context, c *Contact, notice func()) (*Session, error) {
	if c.context.Down != nil {
		return Reach(ctx, c)
	}
	return reachMaster(ctx, c, restartTime, notice)
}

func reachMaster(ctx context.Context, c *Contact, wait time.Duration, notice func()) (*Session, error) {
	s := &Session{client: c.Client(), contact: c}
	ctx, stop := context.WithTimeout(ctx, reachTime)
	defer stop()
	say := time.AfterFunc(noticeTime, notice)
	defer say.Stop()
	tick := time.NewTicker(reconnectInterval)
	defer tick.Stop()
	for begun := time.Now(); ; {
		_, err := s.client.Node(ctx)
		if err == nil {
			c.used()
			return s, nil
		}
		if hungUp(err) && time.Since(begun) < wait {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
			}
		}
		s.client.Close()
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		return nil, c.explain(membership.ExplainReach(c.masters[0], err))
	}
}

// hungUp reports whether a machine that is there ended a call early, as when a master has just been
// killed or is starting.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}

const (
	// reconnectTimeout is how long a session waits for a master that went away, which covers a
	// restart of its machine.
	reconnectTimeout  = time.Hour
	reconnectInterval = 500 * time.Millisecond
	reconnectNotice   = 2 * time.Second
)

// Await waits until the master answers again, and calls notice once that takes longer.
func (s *Session) Await(ctx context.Context, notice func()) error {
	ctx, stop := context.WithTimeoutCause(ctx, reconnectTimeout, errors.New("the master did not come back"))
	defer stop()
	say := time.AfterFunc(reconnectNotice, notice)
	defer say.Stop()
	return poll.Until(ctx, reconnectInterval, func() (bool, error) {
		s.client.Close() // connections to a master that is gone
		_, err := s.client.Node(ctx)
		var refusal *api.Error
		if errors.As(err, &refusal) && refusal.Status != 0 && refusal.Status < http.StatusInternalServerError {
			return false, err
		}
		return err == nil, nil
	})
}

// InCluster reports whether the session is with a node of a cluster: this process only watches what
// runs there, and never replaces it.
func (s *Session) InCluster() bool { return s.contact != nil || s.cluster }
