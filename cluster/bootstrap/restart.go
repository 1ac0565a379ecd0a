package bootstrap

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/shell"
)

// Restart restarts the nodes of the named machines, of all without names, with the program that is running here and the
// settings of the cluster; their trials go on meanwhile. It goes one by one, the master last, and ends with the first that does
// not come back, so that a bad program or setting stops one node at most.
func Restart(ctx context.Context, o Options, names []string) ([]Outcome, error) {
	r := newRun(o)
	defer r.close()
	chosen, err := r.choose(names)
	if err != nil {
		return nil, err
	}
	boss, _ := r.roles()
	needed := chosen
	if boss != nil && !slices.Contains(chosen, boss) {
		needed = append([]*machine{boss}, chosen...)
	}
	r.each(needed, func(m *machine) { r.prepare(ctx, m) })
	r.machines = needed
	r.twins(ctx)
	for _, m := range chosen {
		if ok := r.restart(ctx, m, boss); !ok {
			break
		}
	}
	return r.results(), nil
}

// choose finds the machines by name or address, workers first. Machines without a role have nothing to restart.
func (r *run) choose(names []string) ([]*machine, error) {
	var chosen []*machine
	if err := r.named(names); err != nil {
		return nil, err
	}
	boss, workers := r.roles()
	if boss != nil {
		workers = append(workers, boss)
	}
	for _, m := range workers {
		if len(names) == 0 || slices.Contains(names, m.Name) || slices.Contains(names, m.Address) {
			chosen = append(chosen, m)
		}
	}
	return chosen, nil
}

// named refuses names that belong to no machine.
func (r *run) named(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(r.machines, func(m *machine) bool { return m.Name == name || m.Address == name }) {
			return &shell.Problem{Cause: fmt.Sprintf("there is no host %q in the cluster", name), Cure: "one of: " + strings.Join(r.names(), ", ")}
		}
	}
	return nil
}

func (r *run) names() []string {
	var names []string
	for _, m := range r.machines {
		names = append(names, m.Name)
	}
	return names
}

// restart reports whether the node came back, or could not be restarted for a reason that says nothing about others.
func (r *run) restart(ctx context.Context, m, boss *machine) bool {
	if !r.well(m) {
		return true
	}
	if m == boss {
		boss = nil
	} else if boss != nil && !r.well(boss) {
		r.orphan([]*machine{m}, boss)
		return false
	}
	m.again, m.since = true, m.sinceWhen(ctx, cmp.Or(boss, m))
	r.start(ctx, m, boss)
	if boss != nil {
		return r.well(m) && r.returned(ctx, m, boss)
	}
	if !r.well(m) || !r.returned(ctx, m, m) {
		return false
	}
	r.each(r.machines, func(other *machine) { // a master that comes back meets the others again
		if other != m && other.seen != nil && m.Is(Master) {
			other.seen.Working = false // so that it is asked again
			r.returned(ctx, other, m)
		}
	})
	return true
}

// returned waits until the node works again, and the one that is asked sees it.
func (r *run) returned(ctx context.Context, m, asked *machine) bool {
	return r.step(m, Wait, func() (string, error) {
		ctx, stop := context.WithTimeout(ctx, awaitLimit)
		defer stop()
		return "", m.arrive(ctx, asked)
	})
}
