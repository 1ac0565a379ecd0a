package bootstrap

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
)

// rollout is an operation that starts nodes: the master first, then the workers, which join it.
type rollout struct {
	*operation
	master  *machine   // nil if it is elsewhere
	workers []*machine // the machines that are only workers

	tokenMu sync.Mutex // held while a token is created
}

func newRollout(r *operation) *rollout {
	master, workers := r.machines.masterAndWorkers()
	return &rollout{operation: r, master: master, workers: workers}
}

// nodes lists the machines that run a node, the master first.
func (r *rollout) nodes() []*machine {
	if r.master == nil {
		return r.workers
	}
	return append([]*machine{r.master}, r.workers...)
}

// start starts the machine's node.
func (r *rollout) start(ctx context.Context, m *machine) {
	r.step(m, Start, func() (string, error) {
		w, err := r.desired(m)
		if err != nil {
			return "", err
		}
		reply, err := m.call(ctx, protocol.ActionStart, protocol.Request{Desired: w}, nil)
		if err == nil && m.HasRole(grid.Worker) && !m.HasRole(grid.Master) && !m.observed.Joined {
			reply, err = r.join(ctx, m, w)
		}
		if err != nil {
			return "", err
		}
		r.addNotes(m, reply.Notes...)
		r.update(m, func(o *Outcome) { o.Service = m.observed.Service })
		return strings.Join(reply.Done, ", "), nil
	})
}

// desired returns the desired state of a machine.
func (r *rollout) desired(m *machine) (*protocol.Desired, error) {
	config, err := r.Cluster.nodeConfig(m.Host, m.facts.Layout)
	if err != nil {
		return nil, err
	}
	w := &protocol.Desired{Role: grid.Worker, Config: config, Restart: m.forceRestart, TakeOver: r.TakeOver}
	if m.HasRole(grid.Master) {
		w.Role = grid.Master
		return w, nil
	}
	if r.master == nil {
		w.Seeds = []string{r.Cluster.Attach}
		return w, nil
	}
	p, err := r.Cluster.ports(r.master.Host)
	if err != nil {
		return nil, err
	}
	w.NATS, w.Gossip = p.NATS, p.Gossip
	ways := r.master.addresses()
	if r.master.Local() && !m.Local() {
		ways = []string{m.facts.Client} // this machine's address as m sees it
	}
	w.Seeds = endpoints(ways, p.API)
	return w, nil
}

func endpoints(hosts []string, port int) (all []string) {
	for _, host := range hosts {
		all = append(all, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return all
}

// failWithoutMaster fails workers that can't start without their master.
func (r *rollout) failWithoutMaster(workers ...*machine) {
	for _, m := range workers {
		if r.ok(m) {
			r.fail(m, Start, problem("its master "+r.master.Name+" did not come up",
				"fix that first, and run up again"))
		}
	}
}

// makeToken creates a token on the master.
func (r *rollout) makeToken(ctx context.Context, flags ...string) (string, error) {
	var t struct {
		Token string `json:"token"`
	}
	err := r.master.runJSON(ctx, &t, append([]string{"token", "--json"}, flags...)...)
	if err != nil {
		at := r.master.facts.Layout
		return "", problem("the master did not create a token: "+lastLine(err.Error()),
			"try on it: "+at.Program()+" token --state-dir "+at.State())
	}
	return t.Token, nil
}
