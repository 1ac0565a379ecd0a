package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/grid/lazyregexp"
)

// Cluster is a harness on which every host runs a node: host1 is the master, and the others have
// joined it.
type Cluster struct {
	*Harness
	Master *Host
	Token  string   // a token with which more nodes can join
	Tokens []string // all tokens that NewToken has made
}

// tokenForm matches the token in the explanation that `mlfnode token` prints around it.
var tokenForm = lazyregexp.New(`mlf1\.[0-9a-f]{64}\.[^\s'".]+\.[^\s'"]+`)

// NewCluster makes n hosts and starts a cluster on them. It returns when every node reports every
// other one as alive.
func NewCluster(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	c := &Cluster{Harness: New(t, n, o)}
	c.Master = c.Hosts[0]
	c.Master.Launch("master")
	c.Master.waitForMembers(1)
	c.Token = c.NewToken("--role", "node")
	var joins sync.WaitGroup
	for _, h := range c.Hosts[1:] {
		joins.Go(func() { c.Join(h) })
	}
	joins.Wait()
	for _, h := range c.Hosts {
		h.waitForMembers(n)
	}
	return c
}

// NewToken makes a token on the master.
func (c *Cluster) NewToken(args ...string) string {
	c.t.Helper()
	said := c.Master.Must(append([]string{"token"}, args...)...)
	token := tokenForm.Get().FindString(said)
	if token == "" {
		c.t.Fatalf("mlfnode token printed no token:\n%s", said)
	}
	c.Tokens = append(c.Tokens, token)
	return token
}

// Join starts a node on a host and makes it join the master.
func (c *Cluster) Join(h *Host) *Proc {
	c.t.Helper()
	cmd := h.Command("join", "--seed", c.Master.Name)
	cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+c.Token)
	h.Agent = h.StartCommand(cmd)
	return h.Agent
}

// Launch starts the host's node agent, and records it.
func (h *Host) Launch(args ...string) *Proc {
	h.harness.t.Helper()
	h.Agent = h.Start(args...)
	return h.Agent
}

// Relaunch starts the node agent of a host again, as the host's service would. It needs no token
// any more.
func (c *Cluster) Relaunch(h *Host) *Proc {
	c.t.Helper()
	if h == c.Master {
		return h.Launch("master")
	}
	return h.Launch("join", "--seed", c.Master.Name)
}

// Member is what one node reports about another, in the form that `mlfnode members --json` prints.
type Member struct {
	Node        string   `json:"node"`
	State       string   `json:"state"` // alive, suspect, dead or left
	Address     string   `json:"address"`
	Version     string   `json:"version"`
	Roles       []string `json:"roles"`
	CPUs        float64  `json:"cpus"`
	Memory      int64    `json:"memory_bytes"`
	Running     int      `json:"running"`
	Drained     bool     `json:"drained"`
	Quarantined bool     `json:"quarantined"`
	Reason      string   `json:"reason"`
}

// Members returns the members that the host's node reports.
func (h *Host) Members() ([]Member, error) {
	r := h.Try("members", "--json")
	if r.Code != 0 {
		return nil, fmt.Errorf("%s: mlfnode members: exit code %d: %s", h.Name, r.Code, tail(r.Stderr))
	}
	var all []Member
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		return nil, fmt.Errorf("%s: mlfnode members: %w:\n%s", h.Name, err, tail(r.Stdout))
	}
	return all, nil
}

// State returns the state that the host's node reports for another one, or "" if it does not know
// it.
func (h *Host) State(of string) (string, error) {
	all, err := h.Members()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(m Member) bool { return m.Node == of })
	if i < 0 {
		return "", nil
	}
	return all[i].State, nil
}

// WaitForState waits until the host's node reports another one to be in this state.
func (h *Host) WaitForState(of, want string, limit time.Duration) {
	h.harness.t.Helper()
	WaitFor(h.harness.t, limit, func() error {
		got, err := h.State(of)
		if err == nil && got != want {
			err = fmt.Errorf("%s says that %s is %q, want %q", h.Name, of, got, want)
		}
		return err
	})
}

// WaitForAlive waits until every node that has an agent reports every other such node as alive.
func (c *Cluster) WaitForAlive(limit time.Duration) {
	c.t.Helper()
	var up []string
	for _, h := range c.Hosts {
		if h.Agent != nil {
			up = append(up, h.Name)
		}
	}
	for _, h := range c.Hosts {
		if h.Agent == nil {
			continue
		}
		for _, of := range up {
			h.WaitForState(of, "alive", limit)
		}
	}
}

// waitForMembers waits until the host's node reports n nodes as alive.
func (h *Host) waitForMembers(n int) {
	h.harness.t.Helper()
	WaitFor(h.harness.t, Patience, func() error {
		if h.Agent != nil {
			select {
			case <-h.Agent.Ended():
				h.harness.t.Fatalf("%s: the node has ended:\n%s", h.Name, tail(h.Agent.Output()))
			default:
			}
		}
		all, err := h.Members()
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(m Member) bool { return m.State != "alive" })
		if len(all) != n {
			return errors.Join(fmt.Errorf("%s: %d nodes are alive, want %d", h.Name, len(all), n))
		}
		return nil
	})
}
