package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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
)

// Event is progress on one machine.
type Event struct {
	Host   string        `json:"host"` // its name
	Step   Step          `json:"step"`
	Done   bool          `json:"done"`             // false: it begins
	Detail string        `json:"detail,omitempty"` // the result in a few words; "" if there was nothing to do
	Took   time.Duration `json:"took_ns,omitempty"`
	Err    error         `json:"-"`
}

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

// Outcome is the result of an operation on one machine.
type Outcome struct {
	Host        string             `json:"host"`
	Address     string             `json:"address"`
	Roles       []Role             `json:"roles"`
	Reached     []string           `json:"reached"` // host names and addresses by which it was reached
	OK          bool               `json:"ok"`
	Changed     []string           `json:"changed"` // the changes; empty if there was nothing to do
	Service     string             `json:"service,omitempty"`
	Problem     *shell.Problem     `json:"problem,omitempty"`
	Notes       []string           `json:"notes,omitempty"`
	Cluster     []string           `json:"cluster_notes,omitempty"` // notes about the cluster or the caller, not this machine
	Facts       *Facts             `json:"facts,omitempty"`
	Observed    *protocol.Observed `json:"seen,omitempty"`
	MemberState string             `json:"member,omitempty"` // after Status: alive, suspect, dead or left
	// Authority is the digest, in hex, of the authority of the cluster to which the node that Down
	// has found belongs.
	Authority string `json:"authority,omitempty"`
	// StoppedAt is when the person who asks for the status took the cluster down.
	StoppedAt *time.Time `json:"stopped,omitempty"`
}

// operation is a call of Up, Down or the like.
type operation struct {
	Options
	mu       sync.Mutex
	outcomes map[string]*Outcome
	machines []*machine
	tokenMu  sync.Mutex // held while a token is created
}

func newOperation(o Options) *operation {
	o.Cluster.fillDefaults(o.LocalName, o.Applied)
	r := &operation{Options: o, outcomes: map[string]*Outcome{}}
	for i := range o.Cluster.Hosts {
		h := &o.Cluster.Hosts[i]
		r.machines = append(r.machines, &machine{Host: h})
		r.outcomes[h.Name] = &Outcome{Host: h.Name, Address: h.Address, Roles: h.Roles, OK: true, Changed: []string{}}
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

// ok reports whether nothing has gone wrong on the machine so far.
func (r *operation) ok(m *machine) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcomes[m.Name].OK
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

// step runs one step on a machine, records and announces its result, and reports whether it
// succeeded.
func (r *operation) step(m *machine, s Step, fn func() (detail string, err error)) bool {
	began := time.Now()
	r.OnEvent(Event{Host: m.Name, Step: s})
	detail, err := fn()
	r.mu.Lock()
	o := r.outcomes[m.Name]
	if detail != "" && err == nil && s != Connect && s != Check && s != Wait {
		o.Changed = append(o.Changed, detail)
	}
	if err != nil {
		o.OK, o.Problem = false, ProblemOf(err)
	}
	r.mu.Unlock()
	r.OnEvent(Event{Host: m.Name, Step: s, Done: true, Detail: detail, Took: time.Since(began), Err: err})
	return err == nil
}

func (r *operation) note(m *machine, notes ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.outcomes[m.Name]
	o.Notes = append(o.Notes, notes...)
}

// noteCluster records a note about the cluster or the caller with the machine on which it came up.
func (r *operation) noteCluster(m *machine, note string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.outcomes[m.Name]
	o.Cluster = append(o.Cluster, note)
}

// ProblemOf returns an error as a problem that is safe to show: its text may come from a machine.
func ProblemOf(err error) *shell.Problem {
	var p *shell.Problem
	if !errors.As(err, &p) {
		p = &shell.Problem{Cause: err.Error()}
	}
	return sanitizeProblem(&shell.Problem{Cause: p.Cause, Cure: p.Cure})
}

// Up makes the machines the cluster that o describes, changing only what differs. A machine that
// fails does not stop the others; the outcomes say which failed. Machines that the cluster no
// longer has are stopped.
func Up(ctx context.Context, o Options) []Outcome {
	r := newOperation(o)
	defer r.close()
	r.addRemoved()
	r.forEach(r.machines, func(m *machine) { r.inspect(ctx, m) })
	r.refuseDuplicates(ctx)
	master, workers := r.masterAndWorkers()
	if !r.rolesAgree(master) {
		return r.results()
	}
	if o.DryRun {
		r.planAll(master)
		return r.results()
	}
	if err := r.saveApplied(); err != nil { // before anything is started, so that Down finds it
		r.failAll(master, workers, err)
		return r.results()
	}
	r.forEach(r.machines, func(m *machine) { r.prepare(ctx, m) })
	r.forEach(r.machines, func(m *machine) {
		if len(m.Roles) == 0 && !m.removed { // it may have had one
			r.stop(ctx, m, protocol.Request{PutAside: master != nil && holdsCopy(m, master)})
		}
	})
	if master != nil {
		r.forEach([]*machine{master}, func(m *machine) { r.start(ctx, m, nil) })
		if !r.ok(master) {
			r.failWithoutMaster(workers, master)
			return r.results()
		}
	}
	r.forEach(workers, func(m *machine) { r.start(ctx, m, master) })
	r.waitForNodes(ctx, master, workers)
	r.stopRemoved(ctx, master)
	if master != nil && r.SetUpAccess != nil {
		r.setUpAccess(ctx, master)
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

// setUpAccess sets up the caller's access to the cluster, and notes the result with the master.
func (r *operation) setUpAccess(ctx context.Context, master *machine) {
	p, err := r.Cluster.ports(master.Host)
	if err != nil {
		return // desired has failed for the same reason
	}
	var addresses []string
	for _, host := range master.addresses() {
		addresses = append(addresses, net.JoinHostPort(host, strconv.Itoa(p.API)))
	}
	said := r.SetUpAccess(ctx, addresses, func() (string, error) { return r.makeToken(ctx, master, "--role", "admin", "--note", "up") })
	if said != "" {
		r.noteCluster(master, said)
	}
}

// masterAndWorkers returns the machine that is the master, nil if that is elsewhere, and those that
// are only workers.
func (r *operation) masterAndWorkers() (master *machine, workers []*machine) {
	for _, m := range r.machines {
		switch {
		case m.HasRole(Master):
			master = m
		case m.HasRole(Worker):
			workers = append(workers, m)
		}
	}
	return master, workers
}

// failWithoutMaster fails workers that can't start without their master.
func (r *operation) failWithoutMaster(workers []*machine, master *machine) {
	for _, m := range workers {
		if r.ok(m) {
			r.step(m, Start, func() (string, error) {
				return "", &shell.Problem{Cause: "its master " + master.Name + " did not come up", Cure: "fix that first, and run up again"}
			})
		}
	}
}

// inspectAndPrepare does everything up to the start of the node.
func (r *operation) inspectAndPrepare(ctx context.Context, m *machine) {
	if r.inspect(ctx, m); r.ok(m) {
		r.prepare(ctx, m)
	}
}

// inspect finds out whether a machine can take part, and what is there. It changes nothing.
func (r *operation) inspect(ctx context.Context, m *machine) {
	check := r.checkMachine
	if m.removed {
		check = r.locate
	}
	_ = r.step(m, Connect, func() (string, error) { return "", r.connect(ctx, m) }) &&
		r.step(m, Check, func() (string, error) {
			if err := check(ctx, m); err != nil {
				return "", err
			}
			if m.facts.Digest != "" { // a program that does not run is replaced
				_, _ = m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil)
			}
			return "", nil
		})
}

// prepare copies the program and the project to a machine.
func (r *operation) prepare(ctx context.Context, m *machine) {
	if m.removed {
		return
	}
	_ = r.step(m, Install, func() (string, error) { return r.install(ctx, m) }) &&
		(r.Files == nil || r.step(m, Push, func() (string, error) { return r.push(ctx, m) }))
}

func (r *operation) connect(ctx context.Context, m *machine) (err error) {
	m.shell, m.reachedAs, err = r.Dial(ctx, m.Address)
	return err
}

func (r *operation) checkMachine(ctx context.Context, m *machine) (err error) {
	if m.facts, err = runProbe(ctx, m.shell, r.Cluster.Root); err != nil {
		return err
	}
	r.mu.Lock()
	r.outcomes[m.Name].Facts = m.facts
	r.mu.Unlock()
	problem, notes := m.facts.check()
	r.note(m, notes...)
	if problem != nil {
		return problem
	}
	return nil
}

func (r *operation) install(ctx context.Context, m *machine) (string, error) {
	b, err := r.Builds.fitting(m.facts)
	if err != nil {
		return "", err
	}
	sent, err := m.install(ctx, b)
	if !sent {
		return "", err
	}
	return fmt.Sprintf("installed mlfnode (%d MB)", len(b.content)/1_000_000), nil
}

// start starts the machine's node. master is nil for the master itself, and if the master is
// elsewhere.
func (r *operation) start(ctx context.Context, m, master *machine) {
	r.step(m, Start, func() (string, error) {
		w, err := r.desired(m, master)
		if err != nil {
			return "", err
		}
		reply, err := m.call(ctx, protocol.ActionStart, protocol.Request{Desired: w}, nil)
		if err == nil && m.HasRole(Worker) && !m.HasRole(Master) && !m.observed.Joined {
			reply, err = r.join(ctx, m, master, w)
		}
		if err != nil {
			return "", err
		}
		r.note(m, reply.Notes...)
		r.mu.Lock()
		r.outcomes[m.Name].Service = m.observed.Service
		r.mu.Unlock()
		return strings.Join(reply.Done, ", "), nil
	})
}

// desired returns the desired state of a machine.
func (r *operation) desired(m, master *machine) (*protocol.Desired, error) {
	config, err := r.Cluster.nodeConfig(m.Host, m.facts.Layout)
	if err != nil {
		return nil, err
	}
	w := &protocol.Desired{Role: string(Worker), Config: config, Restart: m.forceRestart, TakeOver: r.TakeOver}
	if m.HasRole(Master) {
		w.Role = string(Master)
		return w, nil
	}
	if master == nil {
		w.Seeds = []string{r.Cluster.Attach}
		return w, nil
	}
	p, err := r.Cluster.ports(master.Host)
	if err != nil {
		return nil, err
	}
	w.NATS, w.Gossip = p.NATS, p.Gossip
	ways := master.addresses()
	if master.Local() && !m.Local() {
		ways = []string{m.facts.Client} // this machine's address as m sees it
	}
	for _, host := range ways {
		w.Seeds = append(w.Seeds, net.JoinHostPort(host, strconv.Itoa(p.API)))
	}
	return w, nil
}

// createdToken holds the fields of `mlfnode token --json` that are needed here.
type createdToken struct {
	Token string `json:"token"`
}

// joinToken creates a token on the master that lets one machine join, or returns the one for a
// master elsewhere.
func (r *operation) joinToken(ctx context.Context, master *machine) (string, error) {
	r.tokenMu.Lock()
	defer r.tokenMu.Unlock()
	if master == nil {
		return r.Token(ctx)
	}
	return r.makeToken(ctx, master, "--uses", "1", "--expires", "15m", "--user", "none", "--note", "up")
}

func (r *operation) makeToken(ctx context.Context, master *machine, flags ...string) (string, error) {
	var t createdToken
	err := master.runJSON(ctx, &t, append([]string{"token", "--json"}, flags...)...)
	if err != nil {
		return "", &shell.Problem{Cause: "the master created no token: " + lastLine(err.Error()), Cure: "try on it: " + master.facts.Layout.Program() + " token --state-dir " + master.facts.Layout.State()}
	}
	return t.Token, nil
}
