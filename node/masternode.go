package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/scheduling"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/jetstream/natsd"
	"mlfnode/node/backup"
	"mlfnode/node/config"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/node/membership"
	"mlfnode/node/monitor"
)

// OpenMaster starts the master of the cluster in the state folder, and founds the cluster if there
// is none. It returns ErrInUse when another process has the folder.
//
// Like Open, it is wiring, in the order in which the parts depend on each other.
func OpenMaster(ctx context.Context, cfg config.Config) (_ *Node, err error) {
	n, err := begin(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if err := CheckMoved(n.cfg.StateDir); err != nil {
		return nil, err
	}
	if n.authority, err = trust.OpenAuthority(membership.TrustDir(cfg.StateDir), nil); err != nil {
		return nil, fmt.Errorf("open the cluster's authority: %w", err)
	}
	n.scheduling = scheduling.New(n.authority, nil)
	if cfg.CertificateLife > 0 {
		n.authority.SetLifetime(cfg.CertificateLife)
	}
	id, err := n.authority.IssueSelf(cfg.Node)
	if err != nil {
		return nil, fmt.Errorf("issue this node's certificate: %w", err)
	}
	if err := n.openServer(ctx, id); err != nil {
		return nil, err
	}
	if err := n.removeEnvironments(ctx, n.log); err != nil {
		return nil, err
	}
	if n.history, err = history.Open(filepath.Join(cfg.StateDir, "history.db"), cfg.Logger); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	n.onClose(func() { n.history.Close() })
	roles := []grid.NodeRole{grid.Master}
	if cfg.Cluster.Worker {
		roles = append(roles, grid.Worker)
	}
	ports := cfg.Cluster.Ports
	ports.NATS = n.server.Addr().(*net.TCPAddr).Port
	apiListener, err := listenTCP(net.JoinHostPort(cfg.Cluster.Bind, strconv.Itoa(ports.API)))
	if err != nil {
		return nil, err
	}
	n.onClose(func() { apiListener.Close() })
	if err := n.openMembership(membership.Config{
		Identity: id, Keyring: n.authority.Keyring(), Authority: n.authority, Scheduling: n.scheduling,
		Gossip: cluster.Config{Self: cluster.Self{Roles: roles, APIPort: ports.API, NATSPort: ports.NATS}},
	}); err != nil {
		return nil, err
	}
	if err := n.membership.RefuseSecondMaster(ctx, ports.API); err != nil {
		return nil, err
	}
	n.onClose(n.store.Calls.HandleKeyring(func(node grid.NodeID) [][]byte {
		if !n.authority.Has(node) {
			return nil // it was forgotten while it asked
		}
		return n.authority.Keyring().Keys()
	}))
	if n.snapshots, err = openSnapshots(&cfg); err != nil {
		return nil, err
	}
	if cfg.Cluster.Worker {
		if err := n.openWorker(ctx, n.store.Calls.LocalClient(cfg.Node), n.store, n.snapshots, 0); err != nil {
			return nil, err
		}
	}
	workers := capacity{n.membership.Gossip}
	awaitDevices := n.host.awaitDevices
	if !cfg.Cluster.Worker { // no trial uses them
		awaitDevices = func(context.Context) {}
	}
	n.master = master.New(master.Config{
		Store: n.store, History: n.history, Logger: cfg.Logger, LeaseTrials: true, Nodes: n.nodes(),
		Capacity: master.Capacity{
			Slots: workers.slots, NeverFits: workers.neverFits, Problem: workers.problem, AwaitDevices: awaitDevices,
		},
		Retention: master.Retention{Sweeps: cfg.Retention.Sweeps, Age: cfg.Retention.Age}, Snapshots: n.snapshots,
	})
	n.start("master", n.master.Run)
	select {
	case <-n.master.Ready():
	case err := <-n.failed:
		return nil, err
	}
	n.onClose(n.membership.Gossip.Watch(func(m cluster.Member) {
		n.master.Kick()
		n.membership.WarnOfRival(m)
	}))
	if cfg.Cluster.Worker {
		addProcessor()
		n.start("worker", n.worker.Run)
	}
	n.start("memory", freeStartMemory)
	n.start("seeds", n.membership.Rejoin)
	n.start("certificate", func(ctx context.Context) error {
		n.membership.RenewCertificate(ctx, func(context.Context) error { return n.authority.RenewSelf(id) })
		return nil
	})
	n.monitor = monitor.New(n.monitored(ports))
	l, err := listen(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n.onClose(n.serve(n.monitor, l)) // for the owner
	others := tls.NewListener(apiListener, id.APIServer(n.authority.Known))
	n.start("API", func(ctx context.Context) error { return n.monitor.ServeOthers(ctx, others) })
	return n, nil
}

// openServer starts the store, for this process and for the nodes.
func (n *Node) openServer(ctx context.Context, id *trust.Identity) (err error) {
	cfg := &n.cfg
	n.server, err = jetstream.Start(jetstream.Config{
		Dir: filepath.Join(cfg.StateDir, "jetstream"), Node: cfg.Node, Logger: cfg.Logger,
		Limits: storeLimits(&cfg.Retention),
		Listen: &natsd.Listen{
			Host: cfg.Cluster.ListenAddress(), Port: cfg.Cluster.Ports.NATS, TLS: id.NATSServer(n.authority.Known),
			Peer: func(s tls.ConnectionState) (grid.NodeID, error) {
				node, _, err := trust.PeerOf(s)
				if err != nil {
					return "", err
				}
				return node, n.authority.Known(node, s.PeerCertificates[0])
			},
		},
	})
	if err != nil {
		return fmt.Errorf("start the store: %w", explainPort(err, cfg.Cluster.Ports.NATS))
	}
	n.onClose(n.server.Close)
	if n.store, err = n.server.OpenStore(ctx); err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	n.onClose(n.store.Close)
	n.start("store", watchStore(n.store.Lost()))
	return nil
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		_, text, _ := net.SplitHostPort(address)
		number, _ := strconv.Atoi(text)
		return nil, fmt.Errorf("listen for the API: %w", explainPort(err, number))
	}
	return l, nil
}

// explainPort returns an error that says what to do about a port that is in use.
func explainPort(err error, port int) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d is in use by another program; stop it, or set ports in node.yaml", port)
	}
	return err
}

// nodes returns how the master sees and commands the nodes of the cluster.
func (n *Node) nodes() *master.Nodes {
	return &master.Nodes{
		Members: n.membership.Gossip.Members, Refused: n.membership.Gossip.Refused,
		Disconnections: n.server.Disconnections,
		Self:           n.cfg.Node, Outage: n.cfg.Cluster.Outage(), LinkUp: linked(n.membership),
		Known:      func(node grid.NodeID) bool { return node == n.cfg.Node || n.authority.Has(node) },
		CrashLimit: n.cfg.Cluster.CrashLimit,
		Keys:       func() uint64 { return membership.KeysID(n.authority.Keyring().Keys()) },
		CAs:        func() uint64 { return n.authority.CAs().ID() },
		Fits:       func(m *cluster.Member, r grid.Resources) bool { return slotsOf(m, r) > 0 },
		Scheduling: n.nodeScheduling(),
	}
}

// nodeScheduling returns how the master keeps trials from nodes that are drained or broken.
func (n *Node) nodeScheduling() master.Scheduling {
	return master.Scheduling{
		Drain: func(node grid.NodeID) (bool, bool, string) {
			d := n.scheduling.Drain(node)
			return d.On, d.By == scheduling.ByMaster, d.Reason
		},
		Quarantine: func(node grid.NodeID, reason string) {
			if err := n.scheduling.SetDrain(node,
				scheduling.Drain{On: true, Reason: reason, By: scheduling.ByMaster}); err != nil {
				n.log.Error("node could not be quarantined", "node", node, "err", err)
			}
		},
		Withhold: func(node grid.NodeID, part grid.Scope, reason string, until time.Time) {
			if err := n.scheduling.Withhold(node, part, scheduling.Withheld{Reason: reason, Until: until}); err != nil {
				n.log.Error("trials could not be withheld from a part of a node", "node", node,
					"part", part, "err", err)
			}
		},
		Withheld: n.scheduling.Withheld,
	}
}

// linked returns a func that reports whether the network link of this machine is up.
func linked(own *membership.Membership) func() bool {
	link := cluster.NewLink(own.Local().Address)
	return func() bool {
		var others []string
		for _, m := range own.Gossip.Members() {
			if m.Node != own.Gossip.Node() {
				others = append(others, m.Address)
			}
		}
		return link.Up(others)
	}
}

// monitored returns what the API of a master shows and does.
func (n *Node) monitored(ports config.Ports) monitor.Config {
	info := describe(&n.cfg)
	info.Role = grid.Master
	writeBackup := func(ctx context.Context, w io.Writer) error {
		return backup.Write(ctx, w, backup.Source{Store: n.store, Snapshots: n.snapshots, StateDir: n.cfg.StateDir},
			aboutBackup(&n.cfg))
	}
	rotation := &membership.Rotation{Membership: n.membership, Kick: n.server.Kick, Followed: n.master.AwaitKeys}
	return monitor.Config{
		Master: n.master, History: n.history.Listings(), Store: n.store, Node: info, Logger: n.cfg.Logger,
		Members: n.membership.Members,
		Cluster: monitor.Cluster{
			Authority: n.authority, Scheduling: n.scheduling,
			Forget: rotation.Forget, Rotate: rotation.RotateKey, Backup: writeBackup, CA: rotation.CA,
			StepCA:  rotation.StepCA,
			Address: net.JoinHostPort(n.membership.Local().Address, strconv.Itoa(ports.API)),
			Meet: func() membership.JoinReply {
				return membership.JoinReply{
					NATSPort: ports.NATS, GossipPort: n.membership.Gossip.Port(),
					Members: n.membership.GossipAddresses(),
				}
			},
		},
	}
}

// removeEnvironments removes the environment of the shell from the records of sweeps that were
// submitted while this machine stood alone: from now on every worker reads the records, and an
// environment may hold secrets. Trials of these sweeps get the environment of their node, as in
// every cluster.
func (s *storage) removeEnvironments(ctx context.Context, log *slog.Logger) error {
	records, err := s.store.Records.All(ctx)
	if err != nil {
		return fmt.Errorf("read the sweeps: %w", err)
	}
	for _, r := range records {
		if len(r.Sweep.Environ) == 0 {
			continue
		}
		sweep := *r.Sweep
		sweep.Environ = nil
		r.Sweep = &sweep
		if _, err := s.store.Records.Update(ctx, &r); err != nil {
			return fmt.Errorf("remove the environment of a shell: %w", err)
		}
		log.Info("the environment of the shell that submitted a sweep is removed, since workers can read it",
			"sweep", sweep.ID)
	}
	return nil
}
