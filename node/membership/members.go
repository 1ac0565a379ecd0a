package membership

import (
	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/cluster/scheduling"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// Members returns what gossip knows of the members, in the form of the API. A master leaves out the
// nodes that it was told to forget: gossip remembers them as dead.
func (s *Membership) Members() []api.Member {
	all, forgotten := []api.Member{}, map[grid.NodeID]bool{}
	if s.authority != nil {
		for _, known := range s.authority.Nodes() {
			forgotten[known.Node] = !known.Forgotten.IsZero()
		}
	}
	for _, m := range s.Gossip.Members() {
		if forgotten[m.Node] && !m.There() {
			continue
		}
		v := member(&m, m.Node == s.Gossip.Node())
		// This node knows first-hand what it runs and, on a master, which nodes it has told to take
		// no trials. Gossip learns it in a moment.
		if w := s.worker(); v.Local && w != nil {
			v.Running = w.Running()
		}
		if s.authority != nil && m.There() {
			if d := s.scheduling.Drain(m.Node); d.On {
				v.Quarantined = d.By == scheduling.ByMaster
				v.Drained, v.Reason = !v.Quarantined, d.Reason
			}
		}
		all = append(all, v)
	}
	markRivals(all)
	return all
}

// member returns a member in the form of the API.
func member(m *cluster.Member, local bool) api.Member {
	v := api.Member{
		Node: m.Node, State: string(m.State), Since: m.Since.UTC(), Address: hostPort(m.Address, m.Port),
		Version: m.Version, Roles: []string{}, Local: local, CPUs: m.CPUs, Memory: m.Memory, GPUs: m.GPUs, Load: m.Load,
		Running: m.Running, Drained: m.Drained, Quarantined: m.Quarantined, Reason: m.Reason, Labels: m.Labels,
		Devices: []api.GPU{},
	}
	if !m.There() {
		v.Load, v.Running = 0, 0 // its last words no longer hold
	}
	for _, r := range m.Roles {
		v.Roles = append(v.Roles, string(r))
	}
	if m.Inventory == nil {
		return v
	}
	v.Driver, v.CUDA, v.Problem, v.MoreDevices = m.Inventory.Driver, m.Inventory.CUDA,
		m.Inventory.GPUProblem, m.Inventory.More
	for _, g := range m.Inventory.Groups {
		v.Groups = append(v.Groups, api.GPUGroup(g))
	}
	for i := range m.Inventory.GPUs {
		g := &m.Inventory.GPUs[i]
		v.Devices = append(v.Devices, api.GPU{
			Node: m.Node, Index: g.Index, Instance: inventory.Unknown, UUID: g.UUID, Name: g.Name, MIG: g.MIG,
			Capability: g.Capability, Group: g.Group, NUMA: g.NUMA, Mode: g.Mode, Memory: g.Memory, Used: g.MemoryUsed,
			Utilization: g.Utilization,
			Temperature: g.Temperature, Power: g.Power, Processes: g.Processes, State: g.State,
			Why: g.Why, Since: g.Since,
			Trials: g.Trials, Problem: g.Problem,
		})
		for k, in := range g.Instances {
			v.Devices = append(v.Devices, api.GPU{
				Node: m.Node, Index: g.Index, Instance: k, UUID: in.UUID, Parent: g.UUID, Name: g.Name,
				Profile:    in.Profile,
				Capability: g.Capability, Group: inventory.Unknown, NUMA: g.NUMA, Memory: in.Memory,
				Used:        in.MemoryUsed,
				Utilization: inventory.Unknown, Temperature: inventory.Unknown, Power: inventory.Unknown,
				Processes: inventory.Unknown, State: in.State, Why: in.Why, Trials: in.Trials,
			})
		}
	}
	return v
}
