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
		_ = r.probe(ctx, m, nil) && r.step(m, Inspect, func() (string, error) {
			if m.facts.Digest != "" {
				if _, err := m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil); err != nil {
					return "", err
				}
				r.update(m, func(o *Outcome) { o.Observed, o.Service = m.observed, m.observed.Service })
			}
			return "", nil
		})
	})
	r.refuseDuplicates(ctx)
	r.forEach(r.machines, func(m *machine) {
		if err := m.statusProblem(); err != nil { // not a step: the caller may know that nothing is wrong
			r.update(m, func(o *Outcome) { o.OK, o.Problem = false, ProblemOf(err) })
		}
	})
	for _, m := range r.machines { // the first node that answers says how it sees the others
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
		break
	}
	return r.results()
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
