package bootstrap

import (
	"sync"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
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

// Outcome is the result of an operation on one machine.
type Outcome struct {
	Host    string          `json:"host"`
	Address string          `json:"address"`
	Roles   []grid.NodeRole `json:"roles"`
	Reached []string        `json:"reached"` // host names and addresses by which it was reached
	OK      bool            `json:"ok"`
	Changed []string        `json:"changed"` // the changes; empty if there was nothing to do
	Service string          `json:"service,omitempty"`
	Problem *shell.Problem  `json:"problem,omitempty"`
	Notes   []string        `json:"notes,omitempty"`
	// notes about the cluster or the caller, not this machine
	Cluster     []string           `json:"cluster_notes,omitempty"`
	Facts       *Facts             `json:"facts,omitempty"`
	Observed    *protocol.Observed `json:"seen,omitempty"`
	MemberState string             `json:"member,omitempty"` // after Status: alive, suspect, dead or left
	// Authority is the digest, in hex, of the authority of the cluster to which the node that Down
	// has found belongs.
	Authority string `json:"authority,omitempty"`
	// StoppedAt is when the person who asks for the status took the cluster down.
	StoppedAt *time.Time `json:"stopped,omitempty"`
}

// report is what an operation has done on each machine so far, and where it announces that. Its
// methods may be called concurrently.
type report struct {
	announce func(Event)

	mu       sync.Mutex
	outcomes map[string]*Outcome // by name of the host
}

// add adds a host on which nothing has been done yet.
func (r *report) add(h *Host) {
	r.outcomes[h.Name] = &Outcome{Host: h.Name, Address: h.Address, Roles: h.Roles, OK: true, Changed: []string{}}
}

// update changes the outcome of a machine.
func (r *report) update(m *machine, change func(*Outcome)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.outcomes[m.Name])
}

// ok reports whether nothing has gone wrong on the machine so far.
func (r *report) ok(m *machine) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcomes[m.Name].OK
}

// step runs one step on a machine, records and announces its result, and reports whether it
// succeeded.
func (r *report) step(m *machine, s Step, fn func() (detail string, err error)) bool {
	began := time.Now()
	r.announce(Event{Host: m.Name, Step: s})
	detail, err := fn()
	r.update(m, func(o *Outcome) {
		if detail != "" && err == nil && s != Connect && s != Check && s != Wait {
			o.Changed = append(o.Changed, detail)
		}
		if err != nil {
			o.OK, o.Problem = false, ProblemOf(err)
		}
	})
	r.announce(Event{Host: m.Name, Step: s, Done: true, Detail: detail, Took: time.Since(began), Err: err})
	return err == nil
}

// fail records and announces a step that did not succeed.
func (r *report) fail(m *machine, s Step, err error) {
	r.step(m, s, func() (string, error) { return "", err })
}

// addNotes adds notes to the outcome of a machine.
func (r *report) addNotes(m *machine, notes ...string) {
	r.update(m, func(o *Outcome) { o.Notes = append(o.Notes, notes...) })
}

// noteCluster records a note about the cluster or the caller with the machine on which it came up.
func (r *report) noteCluster(m *machine, note string) {
	r.update(m, func(o *Outcome) { o.Cluster = append(o.Cluster, note) })
}

// ProblemOf returns an error as a problem that is safe to show: its text may come from a machine.
func ProblemOf(err error) *shell.Problem {
	p := *protocol.ProblemOf(err)
	return sanitizeProblem(&p)
}
