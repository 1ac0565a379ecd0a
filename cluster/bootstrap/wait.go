package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/poll"
)

const (
	// waitTimeout bounds the time from a node's start until the others see it alive and it takes
	// trials.
	waitTimeout = 20 * time.Second
	// pollInterval is the pause between two checks.
	pollInterval = 150 * time.Millisecond
)

// member holds the fields of `mlfnode members --json` that are needed here.
type member struct {
	Node    string    `json:"node"`
	State   string    `json:"state"`
	Address string    `json:"address"` // of its gossip
	Since   time.Time `json:"since"`   // when its state or its agent began
	Running int       `json:"running"` // trials
}

// waitForNodes waits until every started node is seen alive and takes trials. It asks the master
// who is alive, or each worker if the master is elsewhere.
func (r *rollout) waitForNodes(ctx context.Context) {
	limited, stop := context.WithTimeout(ctx, waitTimeout)
	defer stop()
	r.forEach(r.nodes(), func(m *machine) {
		asked := cmp.Or(r.master, m)
		r.step(m, Wait, func() (string, error) {
			err := m.waitUntilWorking(limited, asked)
			if asked == m || m.gossip == "" || ctx.Err() != nil {
				return "", err
			}
			// A node behind a closed gossip port may be seen alive, because other nodes relay its
			// messages, and would be lost with them. The port also explains why a node is suspect,
			// but not why one does not run: that is in its log.
			works := err == nil
			if !works {
				_, failed := m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil)
				works = failed == nil && m.observed.Working
			}
			if works {
				if _, closed := asked.call(ctx, protocol.ActionReach, protocol.Request{Addresses: []string{m.gossip}},
					nil); closed != nil {
					return "", closed
				}
			}
			return "", err
		})
	})
}

// waitUntilWorking waits until the machine's node works and the node of asked sees it alive.
func (m *machine) waitUntilWorking(ctx context.Context, asked *machine) error {
	why := retry(ctx, func() error {
		if !m.observed.Working {
			if _, err := m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil); err != nil {
				return err
			}
			if !m.observed.Working {
				return errors.New("it has no connection to the master yet")
			}
		}
		a, err := asked.memberNamed(ctx, m.Name)
		switch {
		case err != nil:
			return err
		case a == nil:
			return fmt.Errorf("%s does not see it", asked.Name)
		}
		m.gossip = a.Address
		switch {
		case a.State != "alive":
			return fmt.Errorf("%s sees it as %s", asked.Name, a.State)
		case m.forceRestart && a.Since.Equal(m.previousSince):
			return fmt.Errorf("%s still sees the previous agent", asked.Name)
		}
		return nil
	})
	if why != nil {
		return problem("the node was started but is not working: "+why.Error(), "see "+m.logLocation()+" there")
	}
	return nil
}

// retry calls ok repeatedly until it returns nil. When ctx ends, it returns the last error before
// that.
func retry(ctx context.Context, ok func() error) error {
	why := errors.New("it was not asked in time")
	err := poll.Until(ctx, pollInterval, func() (bool, error) {
		err := ok()
		if err != nil && ctx.Err() == nil {
			why = err
		}
		return err == nil, nil
	})
	if err != nil {
		return why
	}
	return nil
}

// memberNamed returns the node with a name as the machine's node sees it, or nil if it knows none.
func (m *machine) memberNamed(ctx context.Context, name string) (*member, error) {
	all, err := m.members(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(a member) bool { return a.Node == name }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil
}

// memberCache caches how a node sees the others, for concurrent callers.
type memberCache struct {
	mu      sync.Mutex
	fetched time.Time
	members []member
}

// members asks the machine's node how it sees the others.
func (m *machine) members(ctx context.Context) ([]member, error) {
	m.memberCache.mu.Lock()
	defer m.memberCache.mu.Unlock()
	if time.Since(m.memberCache.fetched) < pollInterval {
		return m.memberCache.members, nil
	}
	var all []member
	err := m.runJSON(ctx, &all, "members", "--json")
	if err == nil {
		err = checkMembers(all)
	}
	if err != nil {
		return nil, err
	}
	m.memberCache.fetched, m.memberCache.members = time.Now(), all
	return all, nil
}

// logLocation returns where the node's log is.
func (m *machine) logLocation() string {
	switch m.observed.Service {
	case protocol.ServiceSystem:
		return "journalctl -u mlfnode"
	case protocol.ServiceUser:
		return "journalctl --user -u mlfnode"
	}
	return m.facts.Layout.Log()
}
