package bootstrap

import (
	"cmp"
	"context"
	"slices"

	"mlfnode/grid"
)

// Restart restarts the nodes of the named machines, or of all if there are no names, with the
// program that is running here and the settings of the cluster; their trials continue. It restarts
// one node at a time, the master last, and stops at the first that does not come back, so that a
// bad program or setting stops one node at most.
func Restart(ctx context.Context, o Options, names []string) ([]Outcome, error) {
	r := newOperation(o)
	defer r.close()
	if err := r.machines.checkNames(names); err != nil {
		return nil, err
	}
	nodes := newRollout(r)
	master := nodes.master
	chosen := slices.Clone(nodes.workers)
	if master != nil {
		chosen = append(chosen, master)
	}
	chosen = slices.DeleteFunc(chosen, func(m *machine) bool { return !m.isNamed(names) })
	needed := chosen
	if master != nil && !slices.Contains(chosen, master) {
		needed = append([]*machine{master}, chosen...)
	}
	r.forEach(needed, func(m *machine) { r.inspectAndPrepare(ctx, m) })
	r.machines = needed
	r.refuseDuplicates(ctx)
	for _, m := range chosen {
		if !nodes.restart(ctx, m) {
			break
		}
	}
	return r.results(), nil
}

// restart restarts the node of a machine. It reports whether the node came back, or could not be
// restarted for a reason that does not concern others.
func (r *rollout) restart(ctx context.Context, m *machine) bool {
	if !r.ok(m) {
		return true
	}
	master := r.master
	if m == master {
		master = nil
	} else if master != nil && !r.ok(master) {
		r.failWithoutMaster(m)
		return false
	}
	m.forceRestart = true
	if a, err := cmp.Or(master, m).memberNamed(ctx, m.Name); err == nil && a != nil { // a stopped node sees nobody
		m.previousSince = a.Since
	}
	r.start(ctx, m)
	if master != nil {
		return r.ok(m) && r.waitForReturn(ctx, m, master)
	}
	if !r.ok(m) || !r.waitForReturn(ctx, m, m) {
		return false
	}
	r.forEach(r.machines, func(other *machine) { // the others reconnect to a master that comes back
		if other != m && other.observed != nil && m.HasRole(grid.Master) {
			other.observed.Working = false // so that it is checked again
			r.waitForReturn(ctx, other, m)
		}
	})
	return true
}

// waitForReturn waits until the node works again, and the node of asked sees it.
func (r *rollout) waitForReturn(ctx context.Context, m, asked *machine) bool {
	return r.step(m, Wait, func() (string, error) {
		ctx, stop := context.WithTimeout(ctx, waitTimeout)
		defer stop()
		return "", m.waitUntilWorking(ctx, asked)
	})
}
