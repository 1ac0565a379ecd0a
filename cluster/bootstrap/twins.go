package bootstrap

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/shell"
)

// The programs by which machines find out that they share a folder. The first makes a marker, and removes those of runs that were killed; the
// second prints which of the others' markers are there; the third removes the marker. FOLDER, OWN and OTHERS are filled in.
const (
	markProgram   = `cd FOLDER && : >OWN; find . -maxdepth 1 -name '.mlfnode-mark-*' -mmin +60 -delete`
	marksProgram  = `cd FOLDER && for mark in OTHERS; do [ ! -e "$mark" ] || echo "$mark"; done`
	unmarkProgram = `cd FOLDER && rm -f OWN`
)

// findShared finds out which machines have their folder in one place, by a file in each that the others look for: what a file system is called
// says little about who else has it.
func (r *run) findShared(ctx context.Context) {
	var all []*machine
	for _, m := range r.machines {
		if m.facts != nil && m.facts.there != "" && r.well(m) {
			all = append(all, m)
		}
	}
	if len(all) < 2 {
		return
	}
	nonce, marks := rand.Text(), map[*machine]string{}
	for i, m := range all {
		marks[m] = fmt.Sprintf(".mlfnode-mark-%s-%d", nonce, i)
	}
	for _, program := range []string{markProgram, marksProgram, unmarkProgram} {
		r.each(all, func(m *machine) {
			var others []string
			for _, other := range all {
				if other != m {
					others = append(others, marks[other])
				}
			}
			text := strings.NewReplacer("FOLDER", shell.Quote(m.facts.there), "OWN", marks[m], "OTHERS", strings.Join(others, " ")).Replace(program)
			out, err := within(ctx, probeLimit, "it", func(ctx context.Context) (string, error) { return shell.Output(ctx, m.shell, text, nil) })
			if err == nil && program == marksProgram { // else it is found by what comes next
				m.marks = strings.Fields(out)
			}
		})
	}
	for _, m := range all {
		for _, other := range all {
			if slices.Contains(m.marks, marks[other]) {
				m.shares = append(m.shares, other)
			}
		}
	}
}

// twins refuses machines that share their folder with one before them: the same machine by another name, or a home folder on the
// network. Two nodes would take the place of each other there.
func (r *run) twins(ctx context.Context) {
	r.findShared(ctx)
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
		case m.facts != nil && other.facts != nil && m.facts.Disk != "" && m.facts.Disk == other.facts.Disk, slices.Contains(m.shares, other):
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
	root := m.facts.Layout.Root
	return problem(fmt.Sprintf("it shares the folder %s with %s, over the network", root, first.Name),
		fmt.Sprintf("make that a link to a folder that each machine has on a disk of its own, as with: ln -s /scratch/%s %s", m.facts.User, root))
}
