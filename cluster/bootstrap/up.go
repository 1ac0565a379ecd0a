package bootstrap

import (
	"context"
	"slices"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
)

// Step is one thing that is done on each machine.
type Step string

// The steps, in their order.
const (
	Connect Step = "connect" // by ssh
	Check   Step = "check"   // whether the machine can take part
	Install Step = "install" // the program
	Push    Step = "push"    // the project
	Start   Step = "start"   // settings, joining, the service
	Wait    Step = "wait"    // until the others see it alive, and it takes trials
	Plan    Step = "plan"    // of a dry run: what would be done
)

// Options are the arguments of Up, Down and the like.
type Options struct {
	Cluster *Cluster
	// Dial connects to a machine; reached is how other machines may find it.
	Dial      func(ctx context.Context, address string) (m shell.Machine, reached string, err error)
	Builds    *Builds
	LocalName string      // name of this machine
	OnEvent   func(Event) // may be called from several goroutines at a time
	DryRun    bool        // inspect and change nothing
	TakeOver  bool        // make machines of another cluster leave that for this one
	// Applied are the machines of the last run of Up, nil for none: those that the cluster no
	// longer has are stopped. SaveApplied stores the machines of this run for the next one; it is
	// nil if the run is not recorded.
	Applied     *Cluster
	SaveApplied func(*Cluster) error
	Files       *Files // pushed to each machine; nil for no project
	// SetUpAccess gives the person who runs up access to the cluster once its master is up:
	// addresses are those of its API, and token creates an admin's token. It returns a note, which
	// may be empty.
	SetUpAccess func(ctx context.Context, addresses []string, token func() (string, error)) string
	// ConfirmLosses is called before results are removed, with a line for each loss. If it returns
	// an error, Down changes nothing and returns that.
	ConfirmLosses func(ctx context.Context, losses []string) error
	// Token returns a token with which workers join a master that up has not started.
	Token func(ctx context.Context) (string, error)
}

// operation is a call of Up, Down or the like.
type operation struct {
	Options
	report
	machines machineList
}

func newOperation(o Options) *operation {
	o.Cluster.fillDefaults(o.LocalName, o.Applied)
	r := &operation{Options: o, report: report{announce: o.OnEvent, outcomes: map[string]*Outcome{}}}
	for i := range o.Cluster.Hosts {
		h := &o.Cluster.Hosts[i]
		r.machines = append(r.machines, &machine{Host: h})
		r.add(h)
	}
	return r
}

// close ends the connections.
func (r *operation) close() {
	for _, m := range r.machines {
		if m.shell != nil {
			_ = m.shell.Close() // nothing is under way
		}
	}
}

// results lists the outcomes in the order of the hosts.
func (r *operation) results() []Outcome {
	var all []Outcome
	for _, m := range r.machines {
		if m.facts != nil {
			r.outcomes[m.Name].Reached = m.addresses()
		}
		all = append(all, *r.outcomes[m.Name])
	}
	return all
}

// forEach calls fn concurrently for all machines that have not failed.
func (r *operation) forEach(all []*machine, fn func(*machine)) {
	var work sync.WaitGroup
	for _, m := range all {
		if r.ok(m) {
			work.Go(func() { fn(m) })
		}
	}
	work.Wait()
}

// Up makes the machines the cluster that o describes, changing only what differs. A machine that
// fails does not stop the others; the outcomes say which failed. Machines that the cluster no
// longer has are stopped.
func Up(ctx context.Context, o Options) []Outcome {
	r := newOperation(o)
	defer r.close()
	for _, h := range r.Cluster.Removed(r.Applied) {
		r.machines = append(r.machines, &machine{Host: &h, removed: true})
		r.add(&h)
	}
	r.forEach(r.machines, func(m *machine) { r.inspect(ctx, m) })
	r.refuseDuplicates(ctx)
	nodes := newRollout(r)
	master := nodes.master
	if !nodes.rolesAgree() {
		return r.results()
	}
	if o.DryRun {
		r.forEach(r.machines, func(m *machine) {
			r.step(m, Plan, func() (string, error) {
				would, err := nodes.planMachine(m)
				if len(would) == 0 || err != nil {
					return "", err
				}
				return "would " + strings.Join(would, ", "), nil
			})
		})
		return r.results()
	}
	if err := r.saveApplied(); err != nil { // before anything is started, so that Down finds it
		r.forEach(nodes.nodes(), func(m *machine) { r.fail(m, Start, err) })
		return r.results()
	}
	r.forEach(r.machines, func(m *machine) { r.prepare(ctx, m) })
	r.forEach(r.machines, func(m *machine) {
		if len(m.Roles) == 0 && !m.removed { // it may have had one
			r.stop(ctx, m, protocol.Request{PutAside: master != nil && holdsCopy(m, master)})
		}
	})
	if master != nil {
		r.forEach([]*machine{master}, func(m *machine) { nodes.start(ctx, m) })
		if !r.ok(master) {
			nodes.failWithoutMaster(nodes.workers...)
			return r.results()
		}
	}
	r.forEach(nodes.workers, func(m *machine) { nodes.start(ctx, m) })
	nodes.waitForNodes(ctx)
	nodes.stopRemoved(ctx)
	if master != nil && r.SetUpAccess != nil {
		p, err := r.Cluster.ports(master.Host)
		if err != nil {
			return r.results() // desired has failed for the same reason
		}
		token := func() (string, error) { return nodes.makeToken(ctx, "--role", "admin", "--note", "up") }
		if note := r.SetUpAccess(ctx, endpoints(master.addresses(), p.API), token); note != "" {
			r.noteCluster(master, note)
		}
	}
	return r.results()
}

// addresses returns the host names and addresses by which other machines may reach m.
func (m *machine) addresses() []string {
	if m.Local() {
		return []string{"127.0.0.1"}
	}
	var ways []string
	for _, host := range []string{m.reachedAs, m.facts.Server} {
		if host != "" && !slices.Contains(ways, host) {
			ways = append(ways, host)
		}
	}
	return ways
}

// inspectAndPrepare does everything up to the start of the node.
func (r *operation) inspectAndPrepare(ctx context.Context, m *machine) {
	if r.inspect(ctx, m); r.ok(m) {
		r.prepare(ctx, m)
	}
}

// inspect finds out whether a machine can take part, and what is there. It changes nothing.
func (r *operation) inspect(ctx context.Context, m *machine) {
	r.probe(ctx, m, func() error {
		if !m.removed {
			problem, notes := m.facts.check()
			if r.addNotes(m, notes...); problem != nil {
				return problem
			}
		}
		if m.facts.Digest != "" { // a program that does not run is replaced
			_, _ = m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil)
		}
		return nil
	})
}

// probe connects to a machine and finds out what it is and where its files are. check, unless it is
// nil, looks at more of it in the same step.
func (r *operation) probe(ctx context.Context, m *machine, check func() error) bool {
	return r.step(m, Connect, func() (_ string, err error) {
		m.shell, m.reachedAs, err = r.Dial(ctx, m.Address)
		return "", err
	}) && r.step(m, Check, func() (_ string, err error) {
		m.facts, err = runProbe(ctx, m.shell, r.Cluster.Root)
		r.update(m, func(o *Outcome) { o.Facts = m.facts })
		if err == nil && check != nil {
			err = check()
		}
		return "", err
	})
}

// prepare copies the program and the project to a machine.
func (r *operation) prepare(ctx context.Context, m *machine) {
	if m.removed {
		return
	}
	_ = r.step(m, Install, func() (string, error) { return r.install(ctx, m) }) &&
		(r.Files == nil || r.step(m, Push, func() (string, error) { return r.Files.push(ctx, m) }))
}

func (r *operation) install(ctx context.Context, m *machine) (string, error) {
	b, err := r.Builds.fitting(m.facts)
	if err != nil {
		return "", err
	}
	return m.install(ctx, b)
}
