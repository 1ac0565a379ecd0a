package bootstrap

import (
	"context"
	"fmt"
	"time"

	"mlfnode/cluster/bootstrap/shell"
)

// join has a machine join the cluster of boss and start its node. A name that belongs to credentials that are gone, as those of a
// machine that was set up anew, is freed first; one that the machine gives up, afterwards.
func (r *run) join(ctx context.Context, m, boss *machine, w *Wanted) (*Reply, error) {
	reply, err := r.joinOnce(ctx, m, boss, w)
	if reply == nil || boss == nil {
		return reply, err
	}
	if reply.Taken {
		if err := m.free(ctx, boss); err != nil {
			return nil, err
		}
		return r.joinOnce(ctx, m, boss, w)
	}
	if reply.Renamed != "" && err == nil {
		err = boss.forget(ctx, reply.Renamed)
	}
	return reply, err
}

func (r *run) joinOnce(ctx context.Context, m, boss *machine, w *Wanted) (_ *Reply, err error) {
	if w.Token, err = r.joinToken(ctx, boss); err != nil {
		return nil, err
	}
	return m.ask(ctx, ActionStart, Order{Wanted: w}, nil)
}

// free has the master forget who had the machine's name, unless that is alive.
func (m *machine) free(ctx context.Context, boss *machine) error {
	limited, stop := context.WithTimeout(ctx, awaitLimit)
	defer stop()
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	for {
		holder, err := boss.living(limited, m.Name)
		if err == nil && holder == "" {
			return boss.forget(ctx, m.Name)
		}
		select {
		case <-tick.C: // one that was killed is seen as alive for a while
		case <-limited.Done():
			if err != nil {
				return err
			}
			return problem(fmt.Sprintf("the name %s is that of another node, which is alive at %s", m.Name, holder),
				"give one of them another name, with `name:` in cluster.yaml")
		}
	}
}

// living gives the address of the node of a name if the machine's node sees it alive, or is not sure; "" otherwise.
func (m *machine) living(ctx context.Context, name string) (address string, err error) {
	all, err := m.members(ctx)
	for _, a := range all {
		if a.Node == name && (a.State == "alive" || a.State == "suspect") {
			return a.Address, err
		}
	}
	return "", err
}

// forget has the machine, a master, take a name away from its key.
func (m *machine) forget(ctx context.Context, name string) error {
	if _, err := m.run(ctx, "forget", name); err != nil {
		return &shell.Problem{Cause: fmt.Sprintf("the name %s can't be freed: %s", name, lastLine(err.Error())), Cure: "try on " + m.Name + ": mlfnode forget " + name}
	}
	return nil
}
