package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/checkpoint"
	"mlfnode/node/config"
	"mlfnode/node/membership"
	"mlfnode/node/monitor"
	"mlfnode/node/worker"
)

// OpenWorker starts a node that has joined a cluster. It returns trust.ErrNoIdentity for one that
// has not, and ErrInUse when another process has the state folder. The master need not be there:
// the node takes trials as soon as it is.
func OpenWorker(ctx context.Context, cfg config.Config) (_ *Node, err error) {
	id, err := trust.LoadIdentity(membership.TrustDir(cfg.StateDir))
	if err != nil {
		return nil, err
	}
	cfg.Node = id.Node
	n, err := begin(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if id.Expired() { // only now: the programs that the last agent left are to end, too
		n.Stop()
		return nil, membership.ErrExpired(id)
	}
	peers, err := membership.LoadPeers(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	ports := &n.cfg.Cluster.Ports
	if err := peers.AddSeed(n.cfg.Cluster.Seed, ports.API, ports.NATS, ports.Gossip); err != nil {
		return nil, err
	}
	keyring, err := trust.LoadKeyring(membership.TrustDir(cfg.StateDir))
	if err != nil {
		return nil, fmt.Errorf("load the gossip keyring: %w", err)
	}
	if n.cfg.Cluster.Advertise == "" {
		address, err := cluster.ChooseAddress(peers.API[0])
		if err != nil {
			return nil, fmt.Errorf("choose the address of this node: %w", err)
		}
		n.cfg.Cluster.Advertise = address.String()
	}
	if err := n.openMembership(membership.Config{
		Identity: id, Keyring: keyring, Peers: peers,
		Gossip: cluster.Config{Self: cluster.Self{Roles: []grid.NodeRole{grid.Worker}}},
	}); err != nil {
		return nil, err
	}
	n.start("seeds", n.membership.Rejoin)
	n.start("work", func(ctx context.Context) error { return n.work(ctx, id) })
	info := describe(&n.cfg)
	info.Role, info.Master = grid.Worker, peers.API[0]
	n.monitor = monitor.New(monitor.Config{Node: info, Logger: cfg.Logger, Members: n.membership.Members,
		Working: n.takesTrials})
	l, err := listen(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n.onClose(n.serve(n.monitor, l))
	return n, nil
}

// work runs trials until the node ends or the master refuses it.
func (n *Node) work(ctx context.Context, id *trust.Identity) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	err := n.attend(ctx, id, leave)
	var refusal *api.Error
	if cause := context.Cause(ctx); errors.As(cause, &refusal) || errors.Is(cause, errStoreLost) {
		return cause
	}
	return err
}

// attend connects to the master, reports what an earlier agent left, and runs trials until ctx
// ends.
func (n *Node) attend(ctx context.Context, id *trust.Identity, leave context.CancelCauseFunc) error {
	admission := n.membership.Admission(n.Stop, leave)
	link, err := jetstream.Connect(ctx, jetstream.ConnectConfig{
		Node: id.Node, TLS: admission.TLS(), Logger: n.cfg.Logger, Addresses: n.membership.NATSAddresses,
		Connected: admission.Connected, CertificateRefused: admission.Refused,
	})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer link.Close()
	var following sync.WaitGroup
	defer following.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	following.Go(func() {
		if err := watchStore(link.Lost())(ctx); err != nil {
			leave(err)
		}
	})
	client := api.NewRemoteAt(n.membership.MasterAddresses, id.Client(), "")
	defer client.Close()
	if err := n.openWorker(ctx, link, remoteFiles{client}, client.Snapshots(), n.cfg.CheckpointRate); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	following.Go(func() { n.membership.FollowKeyring(ctx, link) })
	following.Go(func() { n.membership.RenewCertificate(ctx, n.membership.AskForCertificate) })
	addProcessor()
	n.atWork.set()
	return n.worker.Run(ctx)
}

// openWorker creates the worker, which reports what the last agent left. rate limits how fast
// checkpoints travel; 0 means no limit.
func (n *Node) openWorker(
	ctx context.Context, calls *jetstream.MasterClient, files worker.FileStore, snapshots checkpoint.Remote, rate int64,
) error {
	cfg := &n.cfg
	outlive := time.Duration(0) // how long programs continue without an agent
	if n.adopter != nil {
		outlive = cfg.Cluster.Patience
	}
	w, err := worker.New(n.devices(worker.Config{
		Node: cfg.Node, Dir: cfg.StateDir, Master: calls, Files: files,
		ProjectCacheLimit: cfg.Retention.Projects, Logger: cfg.Logger,
		Programs: worker.Programs{
			Executor: n.executor, Adopt: n.adopter, Outlive: outlive, Containers: n.containers,
		},
		Snapshots: worker.Snapshots{Remote: snapshots, Rate: rate},
		Reports: worker.Reports{
			Heartbeats: true, KeyringFingerprint: n.membership.KeysID, Sample: n.sampler.last.Load,
			OnDirectives: n.membership.Apply,
		},
	}))
	if err != nil {
		return fmt.Errorf("make the worker: %w", err)
	}
	n.setWorker(w)
	w.Devices.SetMachine(n.machine.Latest())
	return w.Recover(ctx)
}
