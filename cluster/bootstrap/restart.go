package bootstrap

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/shell"
)

// Restart restarts the nodes of the named machines, or of all if there are no names, with the
// program that is running here and the settings of the cluster; their trials continue. It restarts
// one node at a time, the master last, and stops at the first that does not come back, so that a
// bad program or setting stops one node at most.
func Restart(ctx context.Context, o Options, names []string) ([]Outcome, error) {
	r := newOperation(o)
	defer r.close()
	chosen, err := r.selectMachines(names)
	if err != nil {
		return nil, err
	}
	master, _ := r.masterAndWorkers()
	needed := chosen
	if master != nil && !slices.Contains(chosen, master) {
		needed = append([]*machine{master}, chosen...)
	}
	r.forEach(needed, func(m *machine) { r.inspectAndPrepare(ctx, m) })
	r.machines = needed
	r.refuseDuplicates(ctx)
	for _, m := range chosen {
		if ok := r.restart(ctx, m, master); !ok {
			break
		}
	}
	return r.results(), nil
}

// selectMachines returns the machines with these names or addresses, workers first. Machines
// without a role have nothing to restart.
func (r *operation) selectMachines(names []string) ([]*machine, error) {
	var chosen []*machine
	if err := r.checkNames(names); err != nil {
		return nil, err
	}
	master, workers := r.masterAndWorkers()
	if master != nil {
		workers = append(workers, master)
	}
	for _, m := range workers {
		if len(names) == 0 || slices.Contains(names, m.Name) || slices.Contains(names, m.Address) {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// checkNames refuses names that no machine has.
func (r *operation) checkNames(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(r.machines, func(m *machine) bool { return m.Name == name || m.Address == name }) {
			return &shell.Problem{Cause: fmt.Sprintf("there is no host %q in the cluster", name), Cure: "one of: " + strings.Join(r.names(), ", ")}
		}
	}
	return nil
}

func (r *operation) names() []string {
	var names []string
	for _, m := range r.machines {
		names = append(names, m.Name)
	}
	return names
}

// restart restarts the node of a machine. It reports whether the node came back, or could not be
// restarted for a reason that does not concern others.
func (r *operation) restart(ctx context.Context, m, master *machine) bool {
	if !r.ok(m) {
		return true
	}
	if m == master {
		master = nil
	} else if master != nil && !r.ok(master) {
		r.failWithoutMaster([]*machine{m}, master)
		return false
	}
	m.forceRestart, m.previousSince = true, m.memberSince(ctx, cmp.Or(master, m))
	r.start(ctx, m, master)
	if master != nil {
		return r.ok(m) && r.waitForReturn(ctx, m, master)
	}
	if !r.ok(m) || !r.waitForReturn(ctx, m, m) {
		return false
	}
	r.forEach(r.machines, func(other *machine) { // the others reconnect to a master that comes back
		if other != m && other.observed != nil && m.HasRole(Master) {
			other.observed.Working = false // so that it is checked again
			r.waitForReturn(ctx, other, m)
		}
	})
	return true
}

// waitForReturn waits until the node works again, and the node of asked sees it.
func (r *operation) waitForReturn(ctx context.Context, m, asked *machine) bool {
	return r.step(m, Wait, func() (string, error) {
		ctx, stop := context.WithTimeout(ctx, waitTimeout)
		defer stop()
		return "", m.waitUntilWorking(ctx, asked)
	})
}
