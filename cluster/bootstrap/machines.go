package bootstrap

import (
	"fmt"
	"slices"
	"strings"

	"mlfnode/grid"
)

// machineList is the machines of an operation, in the order of the cluster's hosts.
type machineList []*machine

// masterAndWorkers returns the machine that is the master, nil if that is elsewhere, and those that
// are only workers.
func (l machineList) masterAndWorkers() (master *machine, workers []*machine) {
	for _, m := range l {
		switch {
		case m.HasRole(grid.Master):
			master = m
		case m.HasRole(grid.Worker):
			workers = append(workers, m)
		}
	}
	return master, workers
}

// isNamed reports whether the machine is one of those with these names or addresses; without names,
// all are.
func (h *Host) isNamed(names []string) bool {
	return len(names) == 0 || slices.Contains(names, h.Name) || slices.Contains(names, h.Address)
}

// checkNames refuses names that no machine has.
func (l machineList) checkNames(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(l, func(m *machine) bool { return m.Name == name || m.Address == name }) {
			var names []string
			for _, m := range l {
				names = append(names, m.Name)
			}
			return problem(fmt.Sprintf("there is no host %q in the cluster", name),
				"one of: "+strings.Join(names, ", "))
		}
	}
	return nil
}

// duplicateOf returns the first earlier machine that shares its folder with m, or nil.
func (l machineList) duplicateOf(m *machine) *machine {
	for _, other := range l {
		switch {
		case other == m:
			return nil
		case m.facts != nil && other.facts != nil && m.facts.Disk != "" &&
			m.facts.Disk == other.facts.Disk, slices.Contains(m.sharesWith, other):
			return other
		}
	}
	return nil
}
