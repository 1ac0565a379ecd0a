package bootstrap

import (
	"context"
	"fmt"
	"strings"

	"mlfnode/cluster/bootstrap/shell"
)

// Stop is the step of Down.
const Stop Step = "stop"

// Down stops everything that Up has started, first the workers, then the master. Files stay unless purge is set. A machine that
// can't be reached does not stop the others.
func Down(ctx context.Context, o Options, purge bool) []Outcome {
	r := newRun(o)
	defer r.close()
	r.each(r.machines, func(m *machine) {
		_ = r.step(m, Connect, func() (string, error) { return "", r.connect(ctx, m) }) &&
			r.step(m, Check, func() (string, error) { return "", r.glance(ctx, m) })
	})
	boss, _ := r.roles()
	r.each(r.machines, func(m *machine) {
		if m != boss {
			r.stop(ctx, m, purge)
		}
	})
	if boss != nil {
		r.each([]*machine{boss}, func(m *machine) { r.stop(ctx, m, purge) })
	}
	return r.results()
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

func (r *run) stop(ctx context.Context, m *machine, purge bool) {
	r.step(m, Stop, func() (string, error) {
		if first := r.first(m); first != nil {
			r.note(m, "what it had is "+first.Name+"'s, which it shares its folder with")
			return "", nil
		}
		if m.facts.Digest == "" {
			return "", m.shell.Run(ctx, strings.ReplaceAll(remains, "ROOT", shell.Quote(m.facts.Place.Root)), nil, nil)
		}
		reply, err := m.ask(ctx, ActionStop, Order{Purge: purge}, nil)
		if err != nil {
			return "", err
		}
		if m.seen != nil && len(m.seen.Left) > 0 {
			return "", &shell.Problem{Cause: fmt.Sprintf("it is not all gone: %s", strings.Join(m.seen.Left, ", ")), Cure: "run down again"}
		}
		r.note(m, reply.Notes...)
		return doneIn(reply), nil
	})
}
