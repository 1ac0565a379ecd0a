// Package node is one mlfnode: it reads the settings, puts the parts together and starts and stops
// them in order. Session is how the command line finds the node of a state folder, or becomes it.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"mlfnode/cluster/inventory"
	"mlfnode/cluster/scheduling"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/cgroups"
	"mlfnode/node/checkpoint"
	"mlfnode/node/config"
	"mlfnode/node/durable"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/process"
	"mlfnode/node/executor/shim"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/node/membership"
	"mlfnode/node/monitor"
	"mlfnode/node/worker"
)

// Node is one node in this process. Make one with Open, OpenMaster or OpenWorker and end it with
// Close.
type Node struct {
	cfg config.Config
	log *slog.Logger
	lifecycle
	host
	execution
	storage
	registries
	workerPart

	membership *membership.Membership // of a node in a cluster
	master     *master.Master         // of a node that keeps sweeps
	monitor    *monitor.Monitor
}

// host is the machine of a node as the node observes it.
type host struct {
	machine *inventory.Watcher
	looked  *latch // set once the machine's devices were looked at
	sampler sampler
	disk    stall
}

// awaitDevices waits until the devices of this machine are known, which takes seconds if a driver
// has to wake up.
func (h *host) awaitDevices(ctx context.Context) {
	select {
	case <-h.looked.done():
	case <-ctx.Done():
	}
}

// execution is what a node runs attempts with.
type execution struct {
	executor   executor.Executor
	containers *worker.Containers
	adopter    worker.Adopter // of a node in a cluster
}

// storage is what a node that keeps sweeps stores them in.
type storage struct {
	server    *jetstream.Server // of a master
	store     *jetstream.Store
	history   *history.DB
	snapshots *checkpoint.Store
}

// openSnapshots opens the store of checkpoints of a node that keeps sweeps.
func openSnapshots(cfg *config.Config) (*checkpoint.Store, error) {
	return checkpoint.OpenStore(filepath.Join(cfg.StateDir, "snapshots"), cfg.Retention.Checkpoints, cfg.Logger)
}

// registries is what a master knows of the nodes, whether or not they run.
type registries struct {
	authority  *trust.Authority
	scheduling *scheduling.Registry
}

// begin locks the state folder and ends what a dead agent left running, so that nothing writes to
// its spools while they are read. On a lasting node programs outlive the agent, and those of the
// last agent continue.
func begin(ctx context.Context, cfg config.Config, lasting bool) (_ *Node, err error) {
	lock, err := lockState(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, lifecycle: lifecycle{failed: make(chan error, 8), broken: newLatch()},
		execution:  execution{executor: cfg.Executor},
		host:       host{looked: newLatch()},
		workerPart: workerPart{atWork: newLatch(), limits: cfg.Machine, policy: cfg.Devices},
	}
	n.machine = inventory.NewWatcher(cfg.Machine, gpuSource(&cfg), n.machineChanged)
	n.onClose(func() { lock.Close() })
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	token, err := loadToken(filepath.Join(cfg.StateDir, "token"))
	if err != nil {
		return nil, err
	}
	if lasting { // before anything that may go wrong: programs must not wait in vain for an agent whose disk is full
		if err := n.openShim(ctx, &n.cfg, &n.lifecycle, n.stopping.Load, token); err != nil {
			return nil, err
		}
	}
	// no engine is asked before there is a task with an image
	images := docker.NewImages(dockerSettings(&cfg.Engine), func() {
		if w := n.working(); w != nil {
			w.ImagesChanged()
		}
	})
	n.onClose(images.Close)
	n.containers = &worker.Containers{Images: images, Network: cfg.Engine.Network, Mounts: cfg.Engine.Mounts}
	if err := checkWritable(cfg.StateDir); err != nil {
		return nil, err
	}
	// Now, as nothing of this node writes there yet: it would lose what it has under way.
	if err := durable.Clean(cfg.StateDir); err != nil {
		return nil, fmt.Errorf("remove what a dead node had begun to write: %w", err)
	}
	if killed, err := process.Reap(ctx, process.DeadAgent{Token: token, Strays: straysFile(cfg.StateDir)},
		cfg.Logger); err != nil {
		return nil, fmt.Errorf("kill what a dead node left: %w", err)
	} else if killed > 0 {
		cfg.Logger.Info("processes of a dead node killed", "count", killed)
	}
	if lasting {
		return n, nil
	}
	if killed, err := docker.Reap(ctx, dockerOptions(&cfg, token), cfg.Logger); err != nil {
		return nil, fmt.Errorf("remove containers that a dead node left: %w", err)
	} else if killed > 0 {
		cfg.Logger.Info("containers of a dead node removed", "count", killed)
	}
	return n, n.openProcess(ctx, &n.cfg, &n.lifecycle, token)
}

// openProcess opens an executor whose programs die with this process. It stops what the shims of a
// node that was in a cluster still run.
func (e *execution) openProcess(ctx context.Context, cfg *config.Config, l *lifecycle, token string) error {
	if slices.ContainsFunc(ShimFolders(cfg.StateDir), func(dir string) bool {
		_, err := os.Stat(dir)
		return err == nil
	}) {
		left, err := shim.Open(ctx, shimOptions(cfg, token))
		if err == nil {
			err = left.Close()
		}
		if err != nil {
			return fmt.Errorf("stop what an earlier node left running: %w", err)
		}
	}
	if e.executor != nil {
		return nil
	}
	own := cgroups.Own() // before the executor moves this process
	processes, err := process.New(process.Options{Token: token, DieWithAgent: true, Strays: straysFile(cfg.StateDir)},
		cfg.Logger)
	if err != nil {
		return fmt.Errorf("open the process executor: %w", err)
	}
	guarded, dismiss := newGuarded(processes, cfg, own)
	containers := docker.New(dockerOptions(cfg, token), cfg.Logger)
	l.onClose(func() {
		processes.Close()
		if err := containers.Close(); err != nil {
			cfg.Logger.Warn("the connection to the container engine could not be closed", "err", err)
		}
		dismiss()
	})
	e.executor = &executor.Mux{Process: guarded, Containers: containers}
	return nil
}

// openMembership starts the gossip of a node of a cluster. The caller sets what differs between a
// master and a worker.
func (n *Node) openMembership(m membership.Config) (err error) {
	cfg := &n.cfg
	m.StateDir, m.Logger = cfg.StateDir, cfg.Logger
	machine, g := cfg.Machine, &m.Gossip
	g.Bind, g.Port, g.Advertise = cfg.Cluster.ListenAddress(), cfg.Cluster.Ports.Gossip, cfg.Cluster.Advertise
	g.Self.Version, g.Self.Labels = cfg.Version, cfg.Labels
	g.Self.CPUs, g.Self.Memory, g.Self.Inventory = machine.CPUs, machine.Memory, &machine
	m.Stays = func() bool { return !n.stopping.Load() }
	m.Worker = func() membership.Worker {
		if w := n.working(); w != nil {
			return w
		}
		return nil
	}
	if n.membership, err = membership.Start(m); err != nil {
		return err
	}
	n.onClose(n.membership.Close)
	n.start("inventory", n.machine.Run)
	n.start("publish", n.membership.Publish)
	n.start("sample", func(ctx context.Context) error { return n.sampler.run(ctx, n.machine.Latest, cfg.StateDir) })
	return nil
}

// Open starts the node of a state folder that stands alone. A quiet node folds history and answers,
// but runs nothing. It returns ErrInUse when another process has the folder, and ErrOfCluster for
// one that belongs to a cluster.
//
// This is the wiring: it is long because it says in one place what is started in which order. Each
// step registers how it is undone; Close runs these backwards.
func Open(ctx context.Context, cfg config.Config, quiet bool) (_ *Node, err error) {
	if RoleOf(cfg.StateDir) != "" {
		return nil, ErrOfCluster
	}
	n, err := begin(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	server, err := jetstream.Start(jetstream.Config{
		Dir: filepath.Join(cfg.StateDir, "jetstream"), Node: cfg.Node, Logger: cfg.Logger,
		Limits: storeLimits(&cfg.Retention),
	})
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	n.onClose(server.Close)
	if n.store, err = server.OpenStore(ctx); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	n.onClose(n.store.Close)
	n.start("store", watchStore(n.store.Lost()))
	// Leases of the node's last life are void: its attempts are reported below, and what is missing
	// is leased again.
	if err := n.store.Queue.Purge(ctx); err != nil {
		return nil, fmt.Errorf("empty the lease queue: %w", err)
	}
	if n.history, err = history.Open(filepath.Join(cfg.StateDir, "history.db"), cfg.Logger); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	n.onClose(func() { n.history.Close() })
	if n.snapshots, err = openSnapshots(&cfg); err != nil {
		return nil, err
	}
	n.worker, err = worker.New(n.devices(worker.Config{
		Node: cfg.Node, Dir: cfg.StateDir, Master: n.store.Calls.LocalClient(cfg.Node), Files: n.store,
		ProjectCacheLimit: cfg.Retention.Projects, Logger: cfg.Logger,
		Programs:  worker.Programs{Executor: n.executor, Containers: n.containers},
		Snapshots: worker.Snapshots{Remote: n.snapshots},
		Reports:   worker.Reports{Curves: n.history.CurveShare},
	}))
	if err != nil {
		return nil, fmt.Errorf("make the worker: %w", err)
	}
	if err := n.worker.Recover(ctx); err != nil {
		return nil, err
	}
	workerNever := func(r grid.Resources) string {
		if never := n.worker.NeverFits(r); never.Code != "" {
			return fmt.Sprintf("this machine %s", never)
		}
		return ""
	}
	n.master = master.New(master.Config{
		Store: n.store, History: n.history, Logger: cfg.Logger,
		Capacity: master.Capacity{
			Slots: n.worker.Slots, NeverFits: workerNever, Problem: n.worker.UnavailableReason,
			AwaitDevices: n.host.awaitDevices,
			CheckContainers: func(ctx context.Context) error {
				if f := docker.Probe(ctx, dockerSettings(&cfg.Engine), nil); f.Problem != "" {
					return errors.New(f.Problem)
				}
				return nil
			},
		},
		LocalRefusals: n.worker.WaitingLanes, LeaseTrials: !quiet,
		Retention: master.Retention{Sweeps: cfg.Retention.Sweeps, Age: cfg.Retention.Age}, Snapshots: n.snapshots,
	})
	n.start("master", n.master.Run)
	select {
	case <-n.master.Ready():
	case err := <-n.failed:
		return nil, err
	}
	n.start("inventory", n.machine.Run)
	if !quiet {
		addProcessor()
		n.start("worker", n.worker.Run)
		n.start("memory", freeStartMemory)
	}
	n.monitor = monitor.New(monitor.Config{
		Master: n.master, History: n.history.Listings(), Store: n.store, Node: describe(&cfg), Logger: cfg.Logger,
	})
	return n, nil
}

// storeLimits returns the bounds of the streams of the store.
func storeLimits(r *config.Retention) jetstream.Limits {
	return jetstream.Limits{LogBytes: r.Logs, EventBytes: r.Events, ArtifactBytes: r.Artifacts, BundleBytes: r.Bundles}
}

// checkWritable returns a clear error if the folder cannot be written.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("the state folder %s can't be written: %w", dir, problem.WithoutPath(err))
	}
	_, err = f.Write(make([]byte, 4096))
	closed, removed := f.Close(), os.Remove(f.Name())
	for _, err := range []error{err, closed, removed} {
		if err != nil {
			return fmt.Errorf("the state folder %s can't be written: %w", dir, problem.WithoutPath(err))
		}
	}
	return nil
}

// watchStore returns a part that fails when the connection to the store is closed for good: no
// other part works from then on, and the node has to be started again.
func watchStore(lost <-chan struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-lost:
			return errStoreLost
		case <-ctx.Done():
			return nil
		}
	}
}

// errStoreLost ends a node.
var errStoreLost = errors.New("the connection to the store is closed; start the node again")

// describe returns what the API says of a node with these settings.
func describe(c *config.Config) api.Node {
	return api.Node{
		Version: c.Version, Node: c.Node, State: c.StateDir, PID: os.Getpid(),
		CPUs: c.Machine.CPUs, Memory: c.Machine.Memory,
		Retention: api.Retention{Sweeps: c.Retention.Sweeps, Age: c.Retention.Age, Logs: c.Retention.Logs},
	}
}
