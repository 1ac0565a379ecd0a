package bootstrap

import (
	"context"

	"mlfnode/cluster/bootstrap/protocol"
)

// Inspect is the step of Status.
const Inspect Step = "inspect"

// Status inspects all machines and changes nothing. The outcomes contain the observed states, and a
// problem where a node should run but does not.
func Status(ctx context.Context, o Options) []Outcome {
	r := newOperation(o)
	defer r.close()
	r.forEach(r.machines, func(m *machine) {
		_ = r.step(m, Connect, func() (string, error) { return "", r.connect(ctx, m) }) &&
			r.step(m, Check, func() (string, error) { return "", r.locate(ctx, m) }) &&
			r.step(m, Inspect, func() (string, error) { return "", r.observe(ctx, m) })
	})
	r.refuseDuplicates(ctx)
	r.forEach(r.machines, r.recordStatus)
	r.askMembers(ctx)
	return r.results()
}

// askMembers asks the first node that answers how it sees the others.
func (r *operation) askMembers(ctx context.Context) {
	for _, m := range r.machines {
		if m.observed == nil || !m.observed.Active {
			continue
		}
		all, err := m.members(ctx)
		if err != nil {
			continue
		}
		for _, a := range all {
			if o := r.outcomes[a.Node]; o != nil {
				o.MemberState = a.State
			} else if a.State == "alive" {
				r.noteCluster(m, a.Node+" is also a member of the cluster, but is not in the file")
			}
		}
		return
	}
}

func (r *operation) observe(ctx context.Context, m *machine) error {
	if m.facts.Digest != "" {
		if _, err := m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil); err != nil {
			return err
		}
		r.update(m, func(o *Outcome) { o.Observed, o.Service = m.observed, m.observed.Service })
	}
	return nil
}

// recordStatus records what is wrong with a machine. It reports no step: the caller may know that
// nothing is wrong.
func (r *operation) recordStatus(m *machine) {
	if err := m.statusProblem(); err != nil {
		r.update(m, func(o *Outcome) { o.OK, o.Problem = false, ProblemOf(err) })
	}
}

// CureStart is the cure of a machine whose only problem is that its node does not run.
const CureStart = "mlfnode up -f"

// statusProblem returns what is wrong with a machine that should run a node.
func (m *machine) statusProblem() error {
	switch {
	case len(m.Roles) == 0:
		return nil
	case m.observed == nil:
		return problem("mlfnode is not installed", CureStart)
	case m.observed.Service == "":
		return problem("the node is not running", CureStart)
	case !m.observed.Active:
		return problem("the node does not answer", "see "+m.logLocation()+" there, or: mlfnode restart "+m.Name)
	case !m.observed.Working:
		return problem("the node has no connection to its master", "see "+m.logLocation()+" there, and at the master")
	case len(m.observed.Problems) > 0:
		return &m.observed.Problems[0]
	}
	return nil
}
