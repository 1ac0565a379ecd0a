package bootstrap

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
)

// Stop is the step of Down.
const Stop Step = "stop"

// Stopping says what Down is to stop, and how.
type Stopping struct {
	Hosts []string // names or addresses; none is all
	Purge bool     // remove what lies there, too
	Yes   bool     // even results, without asking
}

// Down stops what Up has started, first the workers, then the master. Files stay unless a purge is asked for. A machine that can't be
// reached does not stop the others.
func Down(ctx context.Context, o Options, s Stopping) ([]Outcome, error) {
	r := newRun(o)
	defer r.close()
	if err := r.named(s.Hosts); err != nil {
		return nil, err
	}
	all := r.machines
	r.each(all, func(m *machine) {
		if s.chosen(m) {
			_ = r.step(m, Connect, func() (string, error) { return "", r.connect(ctx, m) }) &&
				r.step(m, Check, func() (string, error) { return "", r.glance(ctx, m) })
		}
	})
	if len(s.Hosts) > 0 {
		r.machines = slices.DeleteFunc(slices.Clone(all), func(m *machine) bool { return !s.chosen(m) })
	}
	r.findShared(ctx)
	losses := r.survey(ctx)
	if s.Purge && !s.Yes && len(losses) > 0 {
		if err := r.Agree(ctx, losses); err != nil {
			return nil, err
		}
	}
	boss, _ := r.roles()
	r.each(r.machines, func(m *machine) {
		if m != boss {
			r.stop(ctx, m, protocol.Request{Purge: s.Purge})
		}
	})
	if boss != nil {
		r.each([]*machine{boss}, func(m *machine) { r.stop(ctx, m, protocol.Request{Purge: s.Purge}) })
	}
	return r.results(), r.forgetApplied()
}

// forgetApplied forgets the machines that were stopped among those of the last run of Up.
func (r *run) forgetApplied() error {
	if r.Applied == nil || r.Record == nil {
		return nil
	}
	c := *r.Applied
	c.Hosts = slices.DeleteFunc(slices.Clone(c.Hosts), func(h Host) bool {
		return slices.ContainsFunc(r.machines, func(m *machine) bool { return m.Address == h.Address && r.well(m) })
	})
	return r.Record(&c)
}

// chosen reports whether the machine is to be stopped.
func (s *Stopping) chosen(m *machine) bool {
	return len(s.Hosts) == 0 || slices.Contains(s.Hosts, m.Name) || slices.Contains(s.Hosts, m.Address)
}

// swept holds the fields of `mlfnode sweeps --json` that are needed here.
type swept struct {
	Running int64 `json:"running"`
}

// survey finds what runs and what is stored on the machines. It notes running trials and returns what a purge would lose.
func (r *run) survey(ctx context.Context) (losses []string) {
	kept := map[*machine]string{}
	r.each(r.machines, func(m *machine) {
		if m.facts == nil || m.facts.Digest == "" {
			return
		}
		_, err := m.ask(ctx, protocol.ActionInspect, protocol.Request{}, nil)
		if m.seen == nil {
			return // a node that can't be asked can be stopped all the same
		}
		r.mu.Lock()
		r.outcomes[m.Name].Authority = m.seen.Cluster
		r.mu.Unlock()
		if err != nil {
			return
		}
		if m.seen.Active {
			r.noteRunning(ctx, m)
		}
		if text := m.kept(ctx); text != "" {
			r.mu.Lock()
			kept[m] = text
			r.mu.Unlock()
		}
	})
	for _, m := range r.machines {
		if text := kept[m]; text != "" {
			losses = append(losses, m.Name+": "+text)
		}
	}
	return losses
}

// noteRunning notes which trials end with the machine's node.
func (r *run) noteRunning(ctx context.Context, m *machine) {
	if a, err := m.sees(ctx, m.Name); err == nil && a != nil && a.Running > 0 {
		r.note(m, fmt.Sprintf("%s, which %s again when there is a node for %s", count(a.Running, "trial was running", "trials were running"),
			plural(a.Running, "begins", "begin"), plural(a.Running, "it", "them")))
	}
}

// kept says which results the machine's node keeps, "" for none. Only a master keeps some.
func (m *machine) kept(ctx context.Context) string {
	if m.seen.Role != string(Master) {
		return ""
	}
	var all []swept
	if !m.seen.Active || m.command(ctx, &all, "sweeps", "--json") != nil {
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

func count(n int, one, many string) string { return fmt.Sprintf("%d %s", n, plural(n, one, many)) }

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// glance finds out where things lie on a machine, whatever else is wrong with it.
func (r *run) glance(ctx context.Context, m *machine) (err error) {
	m.facts, err = examine(ctx, m.shell, r.Cluster.Root)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[m.Name].Facts = m.facts
	return err
}

// remains removes what a run of up left that was killed before the program was in its place.
const remains = `rm -f ROOT/bin/.ship-* ROOT/bin/.digest; rmdir ROOT/bin ROOT 2>/dev/null; true`

func (r *run) stop(ctx context.Context, m *machine, o protocol.Request) {
	r.step(m, Stop, func() (string, error) {
		if first := r.first(m); first != nil {
			r.note(m, "what it had is "+first.Name+"'s, which it shares its folder with")
			return "", nil
		}
		if m.facts.Digest == "" {
			return "", m.shell.Run(ctx, strings.ReplaceAll(remains, "ROOT", shell.Quote(m.facts.Layout.Root)), nil, nil)
		}
		reply, err := m.ask(ctx, protocol.ActionStop, o, nil)
		if err != nil {
			return "", err
		}
		if m.seen != nil && len(m.seen.Leftovers) > 0 {
			return "", &shell.Problem{Cause: fmt.Sprintf("it is not all gone: %s", strings.Join(m.seen.Leftovers, ", ")), Cure: "run down again"}
		}
		r.note(m, reply.Notes...)
		return doneIn(reply), nil
	})
}
