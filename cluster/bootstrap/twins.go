package bootstrap

import "fmt"

// twins refuses machines that share their folder with one before them: the same machine by another name, or a home folder on the
// network. Two nodes would take the place of each other there.
func (r *run) twins() {
	for _, m := range r.machines {
		if first := r.first(m); first != nil && !m.removed && r.well(m) {
			r.step(m, Check, func() (string, error) { return "", m.twin(first) })
		}
	}
}

// first gives the machine before this one that has its folder in the same place, nil for none.
func (r *run) first(m *machine) *machine {
	for _, other := range r.machines {
		switch {
		case other == m:
			return nil
		case m.facts != nil && other.facts != nil && m.facts.Disk != "" && m.facts.Disk == other.facts.Disk:
			return other
		}
	}
	return nil
}

// twin says what is wrong with a machine that shares its folder with another one.
func (m *machine) twin(first *machine) error {
	if m.facts.Boot == first.facts.Boot {
		return problem("it is the same machine as "+first.Name, "name it once")
	}
	root := m.facts.Place.Root
	return problem(fmt.Sprintf("it shares the folder %s with %s, over the network", root, first.Name),
		fmt.Sprintf("make that a link to a folder that each machine has on a disk of its own, as with: ln -s /scratch/%s %s", m.facts.User, root))
}
