package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/monitor"
	"mlfnode/node/worker"
)

// OpenWorker starts a node that has joined a cluster. It returns trust.ErrNoIdentity when it has not, and ErrInUse when another
// process has the state folder. The master need not be there: the node works as soon as it is.
func OpenWorker(ctx context.Context, cfg config.Config) (_ *Node, err error) {
	id, err := trust.LoadIdentity(trustDir(cfg.StateDir))
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
		return nil, errExpired(id)
	}
	if n.known, err = loadKnown(cfg.StateDir); err != nil {
		return nil, err
	}
	if err := n.known.meetAt(&n.cfg.Cluster); err != nil {
		return nil, err
	}
	keyring, err := trust.LoadKeyring(n.trustDir())
	if err != nil {
		return nil, fmt.Errorf("load the gossip keyring: %w", err)
	}
	if n.cfg.Cluster.Advertise == "" {
		address, err := cluster.ChooseAddress(n.known.API[0])
		if err != nil {
			return nil, fmt.Errorf("choose the address of this node: %w", err)
		}
		n.cfg.Cluster.Advertise = address.String()
	}
	if err := n.gossip(id, keyring, []cluster.Role{cluster.Worker}, config.Ports{}); err != nil {
		return nil, err
	}
	n.start("seeds", n.rejoin)
	n.start("work", func(ctx context.Context) error { return n.work(ctx, id) })
	info := describe(&n.cfg)
	info.Role, info.Master = string(trust.Worker), n.known.API[0]
	n.monitor = monitor.New(monitor.Config{Node: info, Logger: cfg.Logger, Members: n.members, Working: n.takesTrials})
	l, err := listen(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	n.onClose(n.serve(l))
	return n, nil
}

// errForgotten ends an agent whose master does not take its certificate any more.
var errForgotten = &api.Error{
	Msg: "the master does not know this node any more: it was forgotten, or the cluster's CA was rotated while it was away", Hint: "join again with a token, made on the master with: mlfnode token",
}

// errExpired ends an agent that was off, or without its master, when its certificate should have been renewed.
func errExpired(id *trust.Identity) error {
	return &api.Error{
		Msg:  fmt.Sprintf("this node's certificate expired on %s while it was offline", id.Expires().Local().Format("2 January 2006 15:04")),
		Hint: "make a token on the master with mlfnode token, and join again with the line that it prints: " + TokenVariable + "=… mlfnode join --seed HOST",
	}
}

// refusals is how often in a row the master must refuse a node before the node believes it.
const refusals = 8

// welcome watches how the master takes this node's connections.
type welcome struct {
	n       *Node
	id      *trust.Identity
	leave   context.CancelCauseFunc
	mu      sync.Mutex
	refused int
}

func (w *welcome) connected(up bool) {
	if !up {
		w.n.log.Warn("connection to the master is lost; trials go on")
		return
	}
	w.mu.Lock()
	w.refused = 0
	w.mu.Unlock()
	w.n.log.Info("connected to the master")
	nudge(w.n.back) // a master that was away in a moment has another life, which may not have heard of this node
	w.n.noteRefused(false)
}

// client is how this node dials the master. A machine there that it can't verify may be anybody, so the node goes on trying; but if it
// was away while the CA was rotated, somebody has to know.
func (w *welcome) client() *tls.Config {
	cfg := w.id.Client()
	verify, once := cfg.VerifyConnection, sync.Once{}
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		err := verify(s)
		if errors.Is(err, trust.ErrWrongCA) {
			once.Do(func() {
				w.n.noteRefused(true) // until the master is met again
				w.n.log.Warn("the machine at the master's address shows a certificate of another CA; if the cluster's CA was rotated while this node "+
					"was away, join again with a token, made on the master with: mlfnode token", "err", err)
			})
		}
		return err
	}
	return cfg
}

// refusedOnce believes a master that the certificate has expired only if this machine's clock says so, too: the master's may be wrong.
func (w *welcome) refusedOnce(expired bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused++; w.refused != refusals {
		return
	}
	var cause error = errForgotten
	switch {
	case w.id.Expired():
		cause = errExpired(w.id)
	case expired:
		w.n.log.Warn("this node's certificate has expired by the master's clock; check the clocks of both machines", "expires", w.id.Expires())
		return
	default:
		w.n.noteRefused(true)
	}
	w.n.Stop() // no agent comes after this one
	w.leave(cause)
}

// refusedFile is in the trust folder of a node that the master has refused: a token, if there is one, is for joining again.
const refusedFile = "refused"

func (n *Node) noteRefused(refused bool) {
	path := filepath.Join(n.trustDir(), refusedFile)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if refused {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		n.log.Warn("it could not be noted what the master thinks of this node", "err", err)
	}
}

// Leave invalidates the credentials of a node that is not running, as if its master had refused it: the node needs a token to join
// again.
func Leave(cfg config.Config) error {
	if err := os.WriteFile(filepath.Join(trustDir(cfg.StateDir), refusedFile), nil, 0o600); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return nil
}

// Refused reports whether the master refused this node when it was last asked, or will, since its certificate has expired.
func Refused(cfg config.Config) bool {
	_, err := os.Stat(filepath.Join(trustDir(cfg.StateDir), refusedFile))
	if err == nil {
		return true
	}
	id, err := trust.LoadIdentity(trustDir(cfg.StateDir))
	return err == nil && id.Expired()
}

// work is attend until the node ends, or the master does not want it.
func (n *Node) work(ctx context.Context, id *trust.Identity) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	err := n.attend(ctx, id, &welcome{n: n, id: id, leave: leave})
	var refusal *api.Error
	if cause := context.Cause(ctx); errors.As(cause, &refusal) || errors.Is(cause, errStoreLost) {
		return cause
	}
	return err
}

// attend connects to the master, reports what an earlier agent left, and runs trials until ctx ends.
func (n *Node) attend(ctx context.Context, id *trust.Identity, w *welcome) error {
	link, err := jetstream.Connect(ctx, jetstream.ConnectConfig{
		Node: id.Node, TLS: w.client(), Logger: n.cfg.Logger, Addresses: n.natsAddresses,
		Connected: w.connected, CertificateRefused: w.refusedOnce,
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
			w.leave(err)
		}
	})
	client := api.NewRemoteAt(n.masterAddresses, id.Client(), "")
	defer client.Close()
	n.mu.Lock()
	n.remote = client.Snapshots()
	n.mu.Unlock()
	if err := n.openWorker(ctx, link, remoteFiles{client}); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	following.Go(func() { n.followKeyring(ctx, link) })
	following.Go(func() {
		n.renewCertificate(ctx, id, func(ctx context.Context) error { return n.askForCertificate(ctx, id) })
	})
	widen()
	n.announce()
	return n.worker.Run(ctx)
}

// announce says, once, that this node works.
func (n *Node) announce() { n.onceWorking.Do(func() { close(n.atWork) }) }

// Working is closed once the node takes trials.
func (n *Node) Working() <-chan struct{} { return n.atWork }

// takesTrials reports whether the node has come to take trials.
func (n *Node) takesTrials() bool {
	select {
	case <-n.atWork:
		return true
	default:
		return false
	}
}

// openWorker makes the worker and has it report what its last life left.
func (n *Node) openWorker(ctx context.Context, calls *jetstream.MasterClient, files worker.FileStore) error {
	cfg := &n.cfg
	n.mu.Lock()
	machine := cfg.Machine
	n.mu.Unlock()
	w, err := worker.New(n.devices(worker.Config{
		Node: cfg.Node, Dir: cfg.StateDir, Master: calls, Files: files, Executor: n.executor, Containers: n.containers, Machine: machine, Logger: cfg.Logger,
		Adopt: n.adopter, Heartbeats: true, Outlive: n.outlive(), OnDirectives: n.obey, KeyringFingerprint: func() uint64 { return keysID(n.fleet.keyring.Keys()) },
		Sample: n.sampled.Load, ProjectCacheLimit: cfg.Retention.Projects,
		Snapshots: n.checkpoints(), SnapshotRate: n.checkpointRate(),
	}))
	if err != nil {
		return fmt.Errorf("make the worker: %w", err)
	}
	n.mu.Lock()
	n.worker = w
	w.SetHandover(!n.stopping.Load())
	n.mu.Unlock()
	n.resize() // the settings may have been read again since
	w.SetMachine(n.machine.Latest())
	return w.Recover(ctx)
}

// outlive is how long programs go on without an agent.
func (n *Node) outlive() time.Duration {
	if n.adopter == nil {
		return 0
	}
	return n.cfg.Cluster.Patience
}

// working gives the worker, nil while there is none.
func (n *Node) working() *worker.Worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.worker
}

// natsAddresses is where the NATS port of the master may be.
func (n *Node) natsAddresses() []string {
	return n.addresses(n.known.NATS, func(m *cluster.Member) int { return m.NATSPort })
}

// masterAddresses is where the API of the master may be.
func (n *Node) masterAddresses() []string {
	return n.addresses(n.known.API, func(m *cluster.Member) int { return m.APIPort })
}

// addresses gives in turns where gossip sees a master and where it was known to be: other members could say that they are it.
func (n *Node) addresses(known []string, port func(*cluster.Member) int) []string {
	var seen []string
	for _, m := range n.fleet.cluster.Members() {
		if p := port(&m); m.There() && m.Has(cluster.Master) && p > 0 {
			seen = append(seen, net.JoinHostPort(m.Address, strconv.Itoa(p)))
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
