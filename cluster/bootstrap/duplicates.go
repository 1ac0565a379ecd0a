package bootstrap

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/shell"
)

// These scripts detect machines that share a folder. The first creates a marker, and removes those
// of runs that were killed; the second prints which of the others' markers are there; the third
// removes the marker. FOLDER, OWN and OTHERS are replaced.
const (
	createMarkerScript = `cd FOLDER && : >OWN; find . -maxdepth 1 -name '.mlfnode-mark-*' -mmin +60 -delete`
	listMarkersScript  = `cd FOLDER && for mark in OTHERS; do [ ! -e "$mark" ] || echo "$mark"; done`
	removeMarkerScript = `cd FOLDER && rm -f OWN`
)

// findSharedFolders finds out which machines share a folder: each creates a file in its own that
// the others look for. The name of a file system does not tell who else has mounted it.
func (r *operation) findSharedFolders(ctx context.Context) {
	var all []*machine
	for _, m := range r.machines {
		if m.facts != nil && m.facts.existingDir != "" && r.ok(m) {
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
	var mu sync.Mutex
	found := map[*machine][]string{} // markers in the folder of each machine; guarded by mu
	for _, program := range []string{createMarkerScript, listMarkersScript, removeMarkerScript} {
		r.forEach(all, func(m *machine) {
			var others []string
			for _, other := range all {
				if other != m {
					others = append(others, marks[other])
				}
			}
			text := strings.NewReplacer("FOLDER", shell.Quote(m.facts.existingDir), "OWN", marks[m],
				"OTHERS", strings.Join(others, " ")).Replace(program)
			out, err := withTimeout(ctx, probeTimeout, "it", func(ctx context.Context) (string, error) {
				return shell.Output(ctx, m.shell, text, nil)
			})
			if err == nil && program == listMarkersScript { // a machine that fails here fails again in the next step
				mu.Lock()
				found[m] = strings.Fields(out)
				mu.Unlock()
			}
		})
	}
	for _, m := range all {
		for _, other := range all {
			if slices.Contains(found[m], marks[other]) {
				m.sharesWith = append(m.sharesWith, other)
			}
		}
	}
}

// refuseDuplicates refuses machines that share their folder with an earlier one: the same machine
// by another name, or a home folder on the network. Two nodes would overwrite each other's files
// there.
func (r *operation) refuseDuplicates(ctx context.Context) {
	r.findSharedFolders(ctx)
	for _, m := range r.machines {
		if first := r.machines.duplicateOf(m); first != nil && !m.removed && r.ok(m) {
			r.fail(m, Check, m.duplicateProblem(first))
		}
	}
}

// duplicateProblem reports that m shares its folder with another machine.
func (m *machine) duplicateProblem(first *machine) error {
	if m.facts.Boot == first.facts.Boot {
		return problem("it is the same machine as "+first.Name, "name it once")
	}
	root := m.facts.Layout.Root
	return problem(fmt.Sprintf("it shares the folder %s with %s, over the network", root, first.Name),
		fmt.Sprintf(
			"make that a link to a folder that each machine has on a disk of its own, as with: ln -s /scratch/%s %s",
			m.facts.User, root))
}
