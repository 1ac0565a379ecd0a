package bootstrap

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
)

// rolesAgree reports whether every machine has the role that cluster.yaml gives it. Otherwise
// nothing is done on any machine: half a change of roles would leave a cluster without a master.
// Machines of other clusters are refused individually.
func (r *rollout) rolesAgree() bool {
	agreed := true
	for _, m := range r.machines {
		if !r.ok(m) || m.observed == nil || m.observed.Role == "" || m.removed {
			continue
		}
		if m.observed.Moved && r.master != nil && r.ok(r.master) && !holdsCopy(m, r.master) {
			agreed = false
			r.fail(m, Check, interruptedMove(m))
			continue
		}
		if len(m.Roles) == 0 || m.observed.Moved { // a moved state is put aside
			continue
		}
		wanted := grid.Worker
		if m.HasRole(grid.Master) {
			wanted = grid.Master
		}
		switch {
		case m.observed.Role != wanted:
			agreed = false
			r.fail(m, Check, protocol.OtherRole(m.observed.Node, m.observed.Role, wanted))
		case wanted == grid.Worker && r.master != nil && r.ofOtherCluster(m):
			r.fail(m, Check, protocol.OtherCluster(m.observed.Node, seedOf(m.observed.Config)))
		}
	}
	if !agreed {
		for _, m := range r.machines {
			r.addNotes(m, "nothing was changed, because not all machines can take their roles")
		}
	}
	return agreed
}

// ofOtherCluster reports whether a worker is known to belong to a different cluster than the
// master's. A worker whose master was set up again at the same address may join it again.
func (r *rollout) ofOtherCluster(m *machine) bool {
	master := r.master
	switch {
	case r.TakeOver, !m.observed.Joined, m.observed.Cluster == "", master.facts == nil:
		return false
	case master.observed != nil && master.observed.Cluster == m.observed.Cluster:
		return false
	case master.observed == nil && master.facts.Digest != "":
		return false // the master did not answer; the worker itself checks again
	}
	w, err := r.desired(m)
	return err == nil && !slices.Contains(w.Seeds, seedOf(m.observed.Config))
}

// seedOf returns the seed in a node.yaml.
func seedOf(config string) string {
	var c struct {
		Seed string `yaml:"seed"`
	}
	_ = yaml.Unmarshal([]byte(config), &c) // an unreadable file has no seed
	return c.Seed
}

// planMachine lists what Up would do on a machine.
func (r *rollout) planMachine(m *machine) (would []string, err error) {
	seen := cmp.Or(m.observed, &protocol.Observed{})
	runs := seen.Service != "" || seen.Active
	if m.removed || len(m.Roles) == 0 {
		if m.removed && m.facts.Digest != "" {
			return []string{"stop it, because it is no longer in the cluster"}, nil
		}
		if runs {
			would = append(would, "stop it")
		}
		return would, nil
	}
	b, err := r.Builds.fitting(m.facts)
	if err != nil {
		return nil, err
	}
	w, err := r.desired(m)
	if err != nil {
		return nil, err
	}
	ships, writes, joins := m.facts.Digest != b.digest, seen.Config != w.Config, false
	if !m.HasRole(grid.Master) {
		seed := seedOf(seen.Config) // any of the seeds may have been chosen
		text := strings.TrimRight(w.Config, "\n") + "\nseed: " + seed + "\n"
		writes = seen.Config != text ||
			!slices.Contains(w.Seeds, seed) && !(len(w.Seeds) == 1 && strings.HasPrefix(seed, w.Seeds[0]))
		joins = m.HasRole(grid.Worker) && (!seen.Joined || seen.Node != m.Name ||
			r.master != nil && r.master.observed != nil && r.master.observed.Cluster != seen.Cluster)
	}
	if ships {
		would = append(would, "install mlfnode")
	}
	if writes {
		would = append(would, "write node.yaml")
	}
	if joins {
		would = append(would, "join")
	}
	switch {
	case !runs && len(seen.Problems) > 0 && !writes:
		return nil, &seen.Problems[0] // it would not start
	case !runs || !seen.Active:
		would = append(would, "start")
	case ships || writes || joins || seen.Stale:
		would = append(would, "restart")
	}
	return would, nil
}

// Removed lists the hosts of the last run, which may be nil, that the cluster no longer has,
// neither by address nor by name: a host keeps its node's name under a new address.
func (c *Cluster) Removed(applied *Cluster) []Host {
	if applied == nil || applied.Root != cmp.Or(c.Root, DefaultRoot) {
		return nil
	}
	var left []Host
	for _, h := range c.MissingFrom(applied) {
		if h.Name != "" {
			h.Roles = nil
			left = append(left, h)
		}
	}
	return left
}

// MissingFrom lists the hosts of another cluster that this one does not have, neither by address
// nor by name.
func (c *Cluster) MissingFrom(other *Cluster) []Host {
	return slices.DeleteFunc(slices.Clone(other.Hosts), func(h Host) bool {
		name := cmp.Or(h.Name, uniqueName(&h, "", nil))
		return slices.ContainsFunc(c.Hosts, func(o Host) bool {
			return o.Address == h.Address ||
				cmp.Or(o.Name, other.nodeNameAt(o.Address), uniqueName(&o, "", nil)) == name
		})
	})
}

// saveApplied records the machines of the cluster, and the removed ones that may still run
// something.
func (r *operation) saveApplied() error {
	if r.SaveApplied == nil {
		return nil
	}
	c := &Cluster{Root: r.Cluster.Root, Key: r.Cluster.Key, Attach: r.Cluster.Attach}
	for _, m := range r.machines {
		if !m.removed || !m.stopped {
			h := *m.Host
			h.Settings = yaml.Node{}
			c.Hosts = append(c.Hosts, h)
		}
	}
	return r.SaveApplied(c)
}

// stopRemoved stops the machines that the cluster no longer has, and makes the master forget them.
// Their trials go to other nodes.
func (r *rollout) stopRemoved(ctx context.Context) {
	r.forEach(r.machines, func(m *machine) {
		if !m.removed {
			return
		}
		if r.machines.duplicateOf(m) != nil { // it is one of the cluster's machines, by another name
			m.stopped = true
			return
		}
		if m.observed != nil && m.observed.Active {
			r.noteRunningTrials(ctx, m)
		}
		worker := m.observed != nil && m.observed.Role == grid.Worker
		if r.stop(ctx, m, protocol.Request{Leave: worker}); !r.ok(m) {
			return
		}
		m.stopped = true
		r.addNotes(m, "it is no longer in the cluster, and was stopped; its files stay in "+m.facts.Layout.Root)
		if worker && r.master != nil && r.ok(r.master) && m.observed.Cluster == r.master.observed.Cluster {
			if err := r.master.forgetNode(ctx, m.observed.Node); err != nil {
				r.addNotes(m, ProblemOf(err).Cause)
			}
		}
	})
	if err := r.saveApplied(); err != nil && r.master != nil {
		r.addNotes(r.master, ProblemOf(err).Cause)
	}
}
