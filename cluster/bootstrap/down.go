package bootstrap

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
)

// Stop is the step of Down.
const Stop Step = "stop"

// DownOptions says what Down stops, and how.
type DownOptions struct {
	Hosts []string // names or addresses; none is all
	Purge bool     // also remove the files
	Yes   bool     // remove even results without asking
}

// Down stops what Up has started, first the workers, then the master. Files stay unless a purge is
// requested. An unreachable machine does not keep the others from being stopped.
func Down(ctx context.Context, o Options, s DownOptions) ([]Outcome, error) {
	r := newOperation(o)
	defer r.close()
	if err := r.machines.checkNames(s.Hosts); err != nil {
		return nil, err
	}
	r.machines = slices.DeleteFunc(r.machines, func(m *machine) bool { return !m.isNamed(s.Hosts) })
	r.forEach(r.machines, func(m *machine) { r.probe(ctx, m, nil) })
	r.findSharedFolders(ctx)
	losses := r.findLosses(ctx)
	if s.Purge && !s.Yes && len(losses) > 0 {
		if err := r.ConfirmLosses(ctx, losses); err != nil {
			return nil, err
		}
	}
	master, _ := r.machines.masterAndWorkers()
	r.forEach(r.machines, func(m *machine) {
		if m != master {
			r.stop(ctx, m, protocol.Request{Purge: s.Purge})
		}
	})
	if master != nil {
		r.forEach([]*machine{master}, func(m *machine) { r.stop(ctx, m, protocol.Request{Purge: s.Purge}) })
	}
	if r.Applied == nil || r.SaveApplied == nil {
		return r.results(), nil
	}
	c := *r.Applied
	c.Hosts = slices.DeleteFunc(slices.Clone(c.Hosts), func(h Host) bool {
		return slices.ContainsFunc(r.machines, func(m *machine) bool { return m.Address == h.Address && r.ok(m) })
	})
	return r.results(), r.SaveApplied(&c)
}

// findLosses finds out what runs and what is stored on the machines. It notes running trials and
// returns what a purge would lose.
func (r *operation) findLosses(ctx context.Context) (losses []string) {
	var mu sync.Mutex
	kept := map[*machine]string{} // guarded by mu
	r.forEach(r.machines, func(m *machine) {
		if m.facts == nil || m.facts.Digest == "" {
			return
		}
		_, err := m.call(ctx, protocol.ActionInspect, protocol.Request{}, nil)
		if m.observed == nil {
			return // a node that does not answer can still be stopped
		}
		r.update(m, func(o *Outcome) { o.Authority = m.observed.Cluster })
		if err != nil {
			return
		}
		if m.observed.Active {
			r.noteRunningTrials(ctx, m)
		}
		if text := m.keptResults(ctx); text != "" {
			mu.Lock()
			kept[m] = text
			mu.Unlock()
		}
	})
	for _, m := range r.machines {
		if text := kept[m]; text != "" {
			losses = append(losses, m.Name+": "+text)
		}
	}
	return losses
}

// noteRunningTrials notes which trials end with the machine's node.
func (r *operation) noteRunningTrials(ctx context.Context, m *machine) {
	if a, err := m.memberNamed(ctx, m.Name); err == nil && a != nil && a.Running > 0 {
		r.addNotes(m, count(a.Running, "trial was running, which begins again when there is a node for it",
			"trials were running, which begin again when there is a node for them"))
	}
}

// keptResults describes the results that the machine's node stores, "" for none. Only a master
// stores some.
func (m *machine) keptResults(ctx context.Context) string {
	if m.observed.Role != grid.Master {
		return ""
	}
	var all []struct { // of `mlfnode sweeps --json`
		Running int64 `json:"running"`
	}
	if !m.observed.Active || m.runJSON(ctx, &all, "sweeps", "--json") != nil {
		return "the results of its cluster"
	}
	if len(all) == 0 {
		return ""
	}
	running := int64(0)
	for _, s := range all {
		running += s.Running
	}
	text := count(len(all), "sweep", "sweeps") + " with all results"
	if running > 0 {
		text += ", and " + count(int(running), "trial is running", "trials are running")
	}
	return text
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// cleanupScript removes what a run of up has left that was killed before it installed the program.
const cleanupScript = `rm -f ROOT/bin/.ship-* ROOT/bin/.digest; rmdir ROOT/bin ROOT 2>/dev/null; true`

func (r *operation) stop(ctx context.Context, m *machine, o protocol.Request) {
	r.step(m, Stop, func() (string, error) {
		if first := r.machines.duplicateOf(m); first != nil {
			r.addNotes(m, "what it had is "+first.Name+"'s, which it shares its folder with")
			return "", nil
		}
		if m.facts.Digest == "" {
			return "", m.shell.Run(ctx,
				strings.ReplaceAll(cleanupScript, "ROOT", shell.Quote(m.facts.Layout.Root)), nil, nil)
		}
		reply, err := m.call(ctx, protocol.ActionStop, o, nil)
		if err != nil {
			return "", err
		}
		if m.observed != nil && len(m.observed.Leftovers) > 0 {
			return "", problem("some of it is still there: "+strings.Join(m.observed.Leftovers, ", "), "run down again")
		}
		r.addNotes(m, reply.Notes...)
		return changes(reply), nil
	})
}
