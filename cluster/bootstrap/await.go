package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
)

const (
	// awaitLimit is how long a node that has been started may take until the others see it alive and it takes trials.
	awaitLimit = 20 * time.Second
	// awaitPause is how often that is looked at.
	awaitPause = 150 * time.Millisecond
)

// alive is what `mlfnode members --json` prints of a node, as far as it is of use here.
type alive struct {
	Node    string    `json:"node"`
	State   string    `json:"state"`
	Address string    `json:"address"` // of its gossip
	Since   time.Time `json:"since"`   // when its state or its agent began
	Running int       `json:"running"` // trials
}

// await waits until every node that was started is seen alive and takes trials. The master is asked who is alive, or, where it
// is no machine of ours, each worker.
func (r *run) await(ctx context.Context, boss *machine, workers []*machine) {
	all := workers
	if boss != nil {
		all = append([]*machine{boss}, workers...)
	}
	limited, stop := context.WithTimeout(ctx, awaitLimit)
	defer stop()
	r.each(all, func(m *machine) {
		asked := boss
		if asked == nil {
			asked = m
		}
		r.step(m, Wait, func() (string, error) {
			err := m.arrive(limited, asked)
			if asked == m || m.gossip == "" || ctx.Err() != nil {
				return "", err
			}
			// A port that is closed on the way back explains why a node is suspect. A node behind one can be alive as well: others
			// tell of it, and it would be lost with them.
			if _, closed := asked.ask(ctx, protocol.ActionReach, protocol.Request{Addresses: []string{m.gossip}}, nil); closed != nil {
				return "", closed
			}
			return "", err
		})
	})
}

// arrive waits until the machine's node works and the one that is asked sees it alive.
func (m *machine) arrive(ctx context.Context, asked *machine) error {
	if why := retry(ctx, func() error { return m.arrived(ctx, asked) }); why != nil {
		return problem("the node was started and is not at work: "+why.Error(), "look at "+m.logs()+" there")
	}
	return nil
}

// retry looks again and again until ok has no error, and gives the last one that came before the end of ctx.
func retry(ctx context.Context, ok func() error) error {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	why := errors.New("it was not asked in time")
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			why = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return why
		}
	}
}

func (m *machine) arrived(ctx context.Context, asked *machine) error {
	if !m.seen.Working {
		if _, err := m.ask(ctx, protocol.ActionInspect, protocol.Request{}, nil); err != nil {
			return err
		}
		if !m.seen.Working {
			return fmt.Errorf("it has no connection to the master yet")
		}
	}
	a, err := asked.sees(ctx, m.Name)
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
	case m.again && a.Since.Equal(m.since):
		return fmt.Errorf("%s sees the agent that ran before", asked.Name)
	}
	return nil
}

// sees gives how the machine's node sees the node of a name, nil for one that it does not know.
func (m *machine) sees(ctx context.Context, name string) (*alive, error) {
	all, err := m.members(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(a alive) bool { return a.Node == name }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil
}

// sinceWhen gives the time since which the node that is asked sees this machine's as it is; the zero time if that is not known.
func (m *machine) sinceWhen(ctx context.Context, asked *machine) time.Time {
	a, err := asked.sees(ctx, m.Name)
	if err != nil || a == nil { // a node that is down sees nobody
		return time.Time{}
	}
	return a.Since
}

// sight is how a node sees the others, for all that want to know it at about the same time.
type sight struct {
	mu  sync.Mutex
	at  time.Time
	all []alive
}

// members asks the machine's node how it sees the others.
func (m *machine) members(ctx context.Context) ([]alive, error) {
	m.sight.mu.Lock()
	defer m.sight.mu.Unlock()
	if time.Since(m.sight.at) < awaitPause {
		return m.sight.all, nil
	}
	var all []alive
	err := m.command(ctx, &all, "members", "--json")
	if err == nil {
		err = checkMembers(all)
	}
	if err != nil {
		return nil, err
	}
	m.sight.at, m.sight.all = time.Now(), all
	return all, nil
}

// logs says where the node's words are.
func (m *machine) logs() string {
	switch m.seen.Service {
	case protocol.ServiceSystem:
		return "journalctl -u mlfnode"
	case protocol.ServiceUser:
		return "journalctl --user -u mlfnode"
	}
	return m.facts.Layout.Log()
}
