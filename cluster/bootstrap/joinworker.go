package bootstrap

import (
	"context"
	"fmt"

	"mlfnode/cluster/bootstrap/protocol"
)

// join makes a machine join the cluster and start its node. If the machine's name belongs to lost
// credentials, as after it was reinstalled, the name is released first. A name that the machine
// gives up is released afterwards.
func (r *rollout) join(ctx context.Context, m *machine, w *protocol.Desired) (*protocol.Response, error) {
	reply, err := r.joinOnce(ctx, m, w)
	if reply == nil || r.master == nil {
		return reply, err
	}
	if reply.NameTaken {
		if err := m.releaseName(ctx, r.master); err != nil {
			return nil, err
		}
		return r.joinOnce(ctx, m, w)
	}
	if reply.FormerName != "" && err == nil {
		err = r.master.forgetNode(ctx, reply.FormerName)
	}
	return reply, err
}

// joinOnce starts the machine's node with a new token of the master that lets one machine join, or
// with the token for a master elsewhere.
func (r *rollout) joinOnce(ctx context.Context, m *machine, w *protocol.Desired) (_ *protocol.Response, err error) {
	r.tokenMu.Lock()
	if r.master == nil {
		w.Token, err = r.Token(ctx)
	} else {
		w.Token, err = r.makeToken(ctx, "--uses", "1", "--expires", "15m", "--user", "none", "--note", "up")
	}
	r.tokenMu.Unlock()
	if err != nil {
		return nil, err
	}
	return m.call(ctx, protocol.ActionStart, protocol.Request{Desired: w}, nil)
}

// releaseName makes the master forget the node with the machine's name, unless that is alive.
func (m *machine) releaseName(ctx context.Context, master *machine) error {
	limited, stop := context.WithTimeout(ctx, waitTimeout)
	defer stop()
	// A killed node is seen as alive for a while.
	err := retry(limited, func() error {
		a, err := master.memberNamed(limited, m.Name)
		if err != nil || a == nil || a.State != "alive" && a.State != "suspect" {
			return err
		}
		return problem(fmt.Sprintf("the name %s is that of another node, which is alive at %s", m.Name, a.Address),
			"give one of them another name, with `name:` in cluster.yaml")
	})
	if err != nil {
		return err
	}
	return master.forgetNode(ctx, m.Name)
}

// forgetNode makes the machine, a master, release a node's name from its key.
func (m *machine) forgetNode(ctx context.Context, name string) error {
	if _, err := m.runCommand(ctx, "forget", "--", name); err != nil {
		return problem(fmt.Sprintf("the name %s can't be freed: %s", name, lastLine(err.Error())),
			"try on "+m.Name+": mlfnode forget "+name)
	}
	return nil
}
