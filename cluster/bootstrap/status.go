package bootstrap

import (
	"context"

	"mlfnode/cluster/bootstrap/protocol"
)

// Look is the step of Status.
const Look Step = "inspect"

// Status looks at all machines and changes nothing. The outcomes have what was seen, and a problem where a node that should run
// does not.
func Status(ctx context.Context, o Options) []Outcome {
	r := newRun(o)
	defer r.close()
	r.each(r.machines, func(m *machine) {
		_ = r.step(m, Connect, func() (string, error) { return "", r.connect(ctx, m) }) &&
			r.step(m, Check, func() (string, error) { return "", r.glance(ctx, m) }) &&
			r.step(m, Look, func() (string, error) { return "", r.look(ctx, m) })
	})
	r.twins(ctx)
	r.each(r.machines, r.report)
	r.askMembers(ctx)
	return r.results()
}

// askMembers has the first node that answers say how it sees the others.
func (r *run) askMembers(ctx context.Context) {
	for _, m := range r.machines {
		if m.seen == nil || !m.seen.Active {
			continue
		}
		all, err := m.members(ctx)
		if err != nil {
			continue
		}
		for _, a := range all {
			if o := r.outcomes[a.Node]; o != nil {
				o.Member = a.State
			} else if a.State == "alive" {
				r.noteCluster(m, a.Node+" is also a member of the cluster, but is not in the file")
			}
		}
		return
	}
}

func (r *run) look(ctx context.Context, m *machine) error {
	if m.facts.Digest != "" {
		if _, err := m.ask(ctx, protocol.ActionInspect, protocol.Request{}, nil); err != nil {
			return err
		}
		r.mu.Lock()
		r.outcomes[m.Name].Seen, r.outcomes[m.Name].Service = m.seen, m.seen.Service
		r.mu.Unlock()
	}
	return nil
}

// report records what is wrong with a machine that was seen. It tells of no step: whether it is wrong, the caller may know better.
func (r *run) report(m *machine) {
	if err := m.judge(); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.outcomes[m.Name].OK, r.outcomes[m.Name].Problem = false, ProblemOf(err)
	}
}

// CureStart is the cure of a machine whose only problem is that its node does not run.
const CureStart = "mlfnode up -f"

// judge says what is wrong with a machine that should run a node.
func (m *machine) judge() error {
	switch {
	case len(m.Roles) == 0:
		return nil
	case m.seen == nil:
		return problem("mlfnode is not there", CureStart)
	case m.seen.Service == "":
		return problem("the node does not run", CureStart)
	case !m.seen.Active:
		return problem("the node does not answer", "look at "+m.logs()+" there, or: mlfnode restart "+m.Name)
	case !m.seen.Working:
		return problem("the node has no connection to its master", "look at "+m.logs()+" there, and at the master")
	case len(m.seen.Problems) > 0:
		return &m.seen.Problems[0]
	}
	return nil
}
