package cluster

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"sort"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// What two nodes send each other when they exchange states, about every node that they know:
//
//	format:1 ( length:uvarint JSON )*
//
// Readers skip fields that they do not know, and pass records on as they came. A record counts only
// while its node is a member and lives the life that the record is of.
const detailFormat = 1

const (
	maxDetail    = 16 << 10 // bytes of one record: a machine with 16 GPUs has 5 kB
	maxDetails   = 4 << 20  // bytes of all: memberlist takes 20 MiB with its own
	maxMembers   = 4096     // nodes that are remembered, dead ones included
	maxGPUs      = 64
	maxInstances = 16 // of one GPU; NVIDIA's have at most 7
	maxGroups    = 32 // kinds of devices of one machine
	maxTrials    = 8  // that a device lists
	maxText      = 256
)

// detail is one record. Of two records of the same agent, the one with the higher serial is newer.
type detail struct {
	Node      grid.NodeID        `json:"node"`
	Started   int64              `json:"started"` // Unix milliseconds
	Serial    uint64             `json:"serial"`
	Load      float64            `json:"load"`
	Reason    string             `json:"reason,omitempty"`
	Inventory *inventory.Machine `json:"inventory,omitempty"`
	Labels    []string           `json:"labels,omitempty"`
	Left      bool               `json:"left,omitempty"` // it said goodbye; for those who took it for dead

	raw []byte
}

func newDetail(node grid.NodeID, started time.Time, s Self, serial uint64) *detail {
	d := &detail{
		Node: node, Started: started.UnixMilli(), Serial: serial, Load: s.Load,
		Reason: cut(s.Reason, maxReason), Inventory: s.Inventory, Labels: s.Labels,
	}
	if math.IsNaN(d.Load) || math.IsInf(d.Load, 0) {
		d.Load = 0 // JSON has no such numbers
	}
	d.encode()
	return d
}

// encode writes the record within its limit. Of an inventory that is too large it keeps the groups,
// and as many of the first devices as fit.
func (d *detail) encode() {
	if d.fits() {
		return
	}
	m := *d.Inventory
	boundTexts(&m)
	all := m.GPUs
	m.More, d.Inventory = true, &m
	left := sort.Search(len(all), func(left int) bool {
		m.GPUs = all[:len(all)-left]
		return d.fits()
	})
	m.GPUs = all[:len(all)-left]
	for !d.fits() && len(m.Groups) > 0 { // no machine has so many kinds of devices
		m.Groups = m.Groups[:len(m.Groups)-1]
	}
	if !d.fits() { // texts of nothing but characters that JSON escapes
		d.Reason = ""
		d.fits()
	}
}

// fits encodes the record, and reports whether it is within its limit.
func (d *detail) fits() bool {
	raw, err := json.Marshal(d)
	if err != nil || len(raw) > maxDetail {
		return false
	}
	d.raw = raw
	return true
}

// encodeDetails writes as many records as fit.
func encodeDetails(all []*detail) []byte {
	buf := []byte{detailFormat}
	for _, d := range all {
		if len(buf)+len(d.raw)+binary.MaxVarintLen64 > maxDetails {
			break
		}
		buf = append(binary.AppendUvarint(buf, uint64(len(d.raw))), d.raw...)
	}
	return buf
}

// decodeDetails reads what another node sent, as far as it can be read.
func decodeDetails(buf []byte) []*detail {
	if len(buf) == 0 || buf[0] != detailFormat || len(buf) > maxDetails {
		return nil
	}
	var all []*detail
	for buf = buf[1:]; len(buf) > 0 && len(all) < maxMembers; {
		size, n := binary.Uvarint(buf)
		if n <= 0 || size > uint64(len(buf)-n) {
			break
		}
		raw := buf[n : n+int(size)]
		buf = buf[n+int(size):]
		if d := decodeDetail(raw); d != nil {
			all = append(all, d)
		}
	}
	return all
}

func decodeDetail(raw []byte) *detail {
	d := &detail{}
	if len(raw) > maxDetail || json.Unmarshal(raw, d) != nil || d.Node == "" {
		return nil
	}
	d.raw = append([]byte(nil), raw...)
	d.Reason = printable([]byte(d.Reason), maxReason)
	d.Labels = slices.DeleteFunc(d.Labels, func(l string) bool { return grid.CheckNodeLabel(l) != nil })
	d.Labels = d.Labels[:min(len(d.Labels), grid.MaxLabels)]
	if m := d.Inventory; m != nil {
		boundTexts(m)
		m.More = m.More || len(m.GPUs) > maxGPUs
		m.GPUs = m.GPUs[:min(len(m.GPUs), maxGPUs)]
		if len(m.Groups) == 0 { // of an older agent
			m.Groups = inventory.GroupsOf(m.GPUs)
		}
	}
	return d
}

// boundTexts shortens the texts of a machine, so that they are bounded and safe to print. Slices
// that it changes are copied.
func boundTexts(m *inventory.Machine) {
	clean := func(n int, texts ...*string) {
		for _, text := range texts {
			*text = printable([]byte(*text), n)
		}
	}
	trials := func(all []string) []string {
		all = slices.Clone(all[:min(len(all), maxTrials)])
		for i := range all {
			clean(maxName, &all[i])
		}
		return all
	}
	clean(maxText, &m.Driver, &m.CUDA, &m.GPUProblem, &m.Hostname, &m.OS, &m.Arch, &m.Kernel)
	m.GPUs, m.Groups = slices.Clone(m.GPUs), slices.Clone(m.Groups[:min(len(m.Groups), maxGroups)])
	for i := range m.Groups {
		g := &m.Groups[i]
		g.Total = min(max(g.Total, 0), maxGPUs*maxInstances)
		g.Ready = min(max(g.Ready, 0), g.Total)
		clean(maxName, &g.Model, &g.Capability, &g.Profile)
	}
	for i := range m.GPUs {
		g := &m.GPUs[i]
		clean(maxName, &g.UUID, &g.Name, &g.Capability, &g.Mode, &g.State)
		clean(maxText, &g.Problem, &g.Why)
		g.Trials = trials(g.Trials)
		g.Instances = slices.Clone(g.Instances[:min(len(g.Instances), maxInstances)])
		for k := range g.Instances {
			in := &g.Instances[k]
			clean(maxName, &in.UUID, &in.Profile, &in.State)
			clean(maxText, &in.Why)
			in.Trials = trials(in.Trials)
		}
	}
}
