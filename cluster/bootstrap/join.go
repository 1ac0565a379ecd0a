package bootstrap

import (
	"context"
	"fmt"

	"mlfnode/cluster/bootstrap/protocol"
)

// join has a machine join the cluster of boss and start its node. A name that belongs to credentials that are gone, as those of a
// machine that was set up again, is freed first; one that the machine gives up, afterwards.
func (r *run) join(ctx context.Context, m, boss *machine, w *protocol.Desired) (*protocol.Response, error) {
	reply, err := r.joinOnce(ctx, m, boss, w)
	if reply == nil || boss == nil {
		return reply, err
	}
	if reply.NameTaken {
		if err := m.free(ctx, boss); err != nil {
			return nil, err
		}
		return r.joinOnce(ctx, m, boss, w)
	}
	if reply.FormerName != "" && err == nil {
		err = boss.forget(ctx, reply.FormerName)
	}
	return reply, err
}

func (r *run) joinOnce(ctx context.Context, m, boss *machine, w *protocol.Desired) (_ *protocol.Response, err error) {
	if w.Token, err = r.joinToken(ctx, boss); err != nil {
		return nil, err
	}
	return m.ask(ctx, protocol.ActionStart, protocol.Request{Desired: w}, nil)
}

// free has the master forget who had the machine's name, unless that is alive.
func (m *machine) free(ctx context.Context, boss *machine) error {
	limited, stop := context.WithTimeout(ctx, awaitLimit)
	defer stop()
	// One that was killed is seen as alive for a while.
	if err := retry(limited, func() error { return boss.missing(limited, m.Name) }); err != nil {
		return err
	}
	return boss.forget(ctx, m.Name)
}

// missing has no error when the machine's node is sure that there is no living one of that name.
func (m *machine) missing(ctx context.Context, name string) error {
	a, err := m.sees(ctx, name)
	if err != nil || a == nil || a.State != "alive" && a.State != "suspect" {
		return err
	}
	return problem(fmt.Sprintf("the name %s is that of another node, which is alive at %s", name, a.Address),
		"give one of them another name, with `name:` in cluster.yaml")
}

// forget has the machine, a master, take a name away from its key.
func (m *machine) forget(ctx context.Context, name string) error {
	if _, err := m.run(ctx, "forget", "--", name); err != nil {
		return problem(fmt.Sprintf("the name %s can't be freed: %s", name, lastLine(err.Error())), "try on "+m.Name+": mlfnode forget "+name)
	}
	return nil
}
