package hosts

import (
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
	c.Master.Agent.Start("master")
	c.Master.Agent.waitForMembers(1)
	c.Token = c.NewToken("--role", "node")
	var joins sync.WaitGroup
	for _, h := range c.Hosts[1:] {
		joins.Go(func() { c.Join(h) })
	}
	joins.Wait()
	for _, h := range c.Hosts {
		h.Agent.waitForMembers(n)
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
	return h.Agent.StartCommand(cmd)
}

// Relaunch starts the node agent of a host again, as the host's service would. It needs no token
// any more.
func (c *Cluster) Relaunch(h *Host) *Proc {
	c.t.Helper()
	if h == c.Master {
		return h.Agent.Start("master")
	}
	return h.Agent.Start("join", "--seed", c.Master.Name)
}

// WaitForAlive waits until every node that has an agent reports every other such node as alive.
func (c *Cluster) WaitForAlive(limit time.Duration) {
	c.t.Helper()
	var up []string
	for _, h := range c.Hosts {
		if h.Agent.Proc != nil {
			up = append(up, h.Name)
		}
	}
	for _, h := range c.Hosts {
		if h.Agent.Proc == nil {
			continue
		}
		for _, of := range up {
			h.Agent.WaitForState(of, "alive", limit)
		}
	}
}
