// Package membership is this node's part in its cluster: it joins with a token, gossips with its
// peers and remembers where they are, publishes the state of this node, keeps its certificate and
// gossip keyring up to date, and, on the master, rotates the keys of the cluster. Package node
// decides when each part starts and stops.
package membership

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/scheduling"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/poll"
)

// protocol is the version of the wire formats that this program speaks: of beats, events and
// leases.
const protocol = 1

// publishInterval is how often a node looks for changes of the state that it publishes.
const publishInterval = 2 * time.Second

// leaveTimeout bounds how long a node that ends takes to tell the others.
const leaveTimeout = time.Second

// Worker is what runs the trials of this node.
type Worker interface {
	Running() int              // attempts
	DiskFull() bool            // so it takes no trials
	UnavailableReason() string // why it takes no trials, or not all; "" if nothing is wrong
}

// Config is what a node needs to take part in its cluster.
type Config struct {
	StateDir   string
	Identity   *trust.Identity
	Keyring    *trust.Keyring
	Authority  *trust.Authority     // of the master; nil on a worker
	Scheduling *scheduling.Registry // of the master; nil on a worker
	Peers      *Peers               // where a worker finds its cluster; a master reads them from the state folder

	Gossip cluster.Config // Bind, Port, Advertise and Self; the rest follows from the other fields

	Worker func() Worker // nil as long as the node runs no trials
	Stays  func() bool   // the node is to be back in a moment: the others are not told that it leaves
	Logger *slog.Logger
}

// Membership is this node as a member of its cluster. Its methods may be called from any goroutine.
type Membership struct {
	Gossip *cluster.Cluster
	*gossipKeys

	log        *slog.Logger
	stateDir   string
	id         *trust.Identity
	authority  *trust.Authority     // of the master
	scheduling *scheduling.Registry // of the master
	peers      *Peers               // of a worker
	worker     func() Worker
	stays      func() bool

	staleCertificate poll.Signal // set when the master has other CAs
	masterBack       poll.Signal // set when this worker is connected to its master again
}

// TrustDir returns the folder of the credentials in a state folder.
func TrustDir(stateDir string) string { return filepath.Join(stateDir, "trust") }

// Start makes this node gossip. End it with Close.
func Start(cfg Config) (*Membership, error) {
	s := &Membership{
		log: cfg.Logger, stateDir: cfg.StateDir, id: cfg.Identity, authority: cfg.Authority, scheduling: cfg.Scheduling,
		peers: cfg.Peers, worker: cfg.Worker, stays: cfg.Stays,
		staleCertificate: poll.NewSignal(), masterBack: poll.NewSignal(),
	}
	g := cfg.Gossip
	g.Node, g.Keys, g.Logger = cfg.Identity.Node, cfg.Keyring.Keys(), cfg.Logger
	g.Label = hex.EncodeToString(cfg.Identity.Cluster[:8])
	g.Self.Protocol, g.Self.Load = protocol, loadAverage()
	var err error
	if s.Gossip, err = cluster.Start(g); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	s.gossipKeys = &gossipKeys{log: cfg.Logger, gossip: s.Gossip, keyring: cfg.Keyring, stale: poll.NewSignal()}
	return s, nil
}

// Close ends the gossip. It tells the others that this node leaves, unless it is to be back in a
// moment.
func (s *Membership) Close() {
	defer s.Gossip.Close()
	if s.stays() {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), leaveTimeout) // the node ends
	defer stop()
	if err := s.Gossip.Leave(ctx); err != nil {
		s.log.Debug("no other node was told that this one leaves", "err", err)
	}
}

// Publish keeps the published number of attempts and the load of this node up to date, until ctx
// ends.
func (s *Membership) Publish(ctx context.Context) error {
	tick := time.NewTicker(publishInterval)
	defer tick.Stop()
	for {
		running := 0
		if w := s.worker(); w != nil {
			running = w.Running()
		}
		s.Gossip.Update(func(self *cluster.Self) { self.Running, self.Load = running, loadAverage() })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Apply publishes what the master has decided about this node, and starts to fetch the keyring or
// the certificate if the master has another one.
func (s *Membership) Apply(o *jetstream.Directives) {
	full, trouble := false, ""
	if w := s.worker(); w != nil {
		full, trouble = w.DiskFull(), w.UnavailableReason()
	}
	s.Gossip.Update(func(self *cluster.Self) {
		self.Drained, self.Quarantined, self.Reason = o.Drain && !o.Quarantine, o.Quarantine, o.Reason
		if trouble != "" && !o.Drain {
			self.Drained, self.Reason = full, trouble
		}
		for _, part := range slices.Sorted(maps.Keys(o.Without)) {
			switch {
			case self.Reason != "":
			case part.IsLane():
				self.Reason = "takes no trials like some that failed: " + o.Without[part]
			default:
				self.Reason = fmt.Sprintf("takes no trials that need its %s: %s", part, o.Without[part])
			}
		}
	})
	if o.Keys != 0 && o.Keys != s.KeysID() {
		s.gossipKeys.stale.Set()
	}
	if o.CAs != 0 && o.CAs != s.id.Trusted().ID() {
		s.staleCertificate.Set()
	}
}

// loadAverage returns the load average of the last minute, 0 if the system does not report it.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	v, _ := strconv.ParseFloat(first, 64) // 0 for what cannot be read
	return v
}

// GossipAddresses lists where the nodes that are there gossip, for others to join them.
func (s *Membership) GossipAddresses() []string {
	var all []string
	for _, m := range s.Gossip.Members() {
		if m.There() {
			all = append(all, hostPort(m.Address, m.Port))
		}
	}
	return all
}

// Local returns this node as a member.
func (s *Membership) Local() cluster.Member {
	for _, m := range s.Gossip.Members() {
		if m.Node == s.Gossip.Node() {
			return m
		}
	}
	return cluster.Member{Node: s.Gossip.Node()}
}

// NATSAddresses returns where the NATS port of the master may be.
func (s *Membership) NATSAddresses() []string {
	return s.addresses(s.peers.NATS, func(m *cluster.Member) int { return m.NATSPort })
}

// MasterAddresses returns where the API of the master may be.
func (s *Membership) MasterAddresses() []string {
	return s.addresses(s.peers.API, func(m *cluster.Member) int { return m.APIPort })
}

// addresses alternates between where gossip sees a master and where it was when this node last knew
// it, since any member could claim to be the master.
func (s *Membership) addresses(known []string, port func(*cluster.Member) int) []string {
	var seen []string
	for _, m := range s.Gossip.Members() {
		if p := port(&m); m.There() && m.Has(grid.Master) && p > 0 {
			seen = append(seen, hostPort(m.Address, p))
		}
	}
	var all []string
	for i := range max(len(seen), len(known)) {
		for _, list := range [][]string{seen, known} {
			if i < len(list) && !slices.Contains(all, list[i]) {
				all = append(all, list[i])
			}
		}
	}
	return all
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
