package cluster

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// What two nodes tell each other when they exchange states, about every node that they know:
//
//	format:1 ( length:uvarint JSON )*
//
// Readers skip fields that they do not know, and pass records on as they came. A record counts only while its node is a member
// and lives the life that the record is of.
const detailFormat = 1

const (
	maxDetail  = 16 << 10 // bytes of one record: a machine with 16 GPUs has 5 kB
	maxDetails = 4 << 20  // bytes of all: memberlist takes 20 MiB with its own
	maxMembers = 4096     // nodes that are remembered, dead ones included
	maxGPUs    = 64
)

// detail is one record. Of two from one life of an agent the one with the higher serial is newer.
type detail struct {
	Node      grid.NodeID        `json:"node"`
	Started   int64              `json:"started"` // Unix milliseconds
	Serial    uint64             `json:"serial"`
	Load      float64            `json:"load"`
	Reason    string             `json:"reason,omitempty"`
	Inventory *inventory.Machine `json:"inventory,omitempty"`

	raw []byte
}

func newDetail(node grid.NodeID, started time.Time, s Self, serial uint64) *detail {
	d := &detail{
		Node: node, Started: started.UnixMilli(), Serial: serial, Load: s.Load, Reason: cut(s.Reason, maxReason), Inventory: s.Inventory,
	}
	var err error
	if d.raw, err = json.Marshal(d); err == nil && len(d.raw) <= maxDetail {
		return d
	}
	d.Load, d.Inventory = 0, nil // a load that is no number can't be written either
	d.raw, _ = json.Marshal(d)
	return d
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
	if m := d.Inventory; m != nil {
		m.GPUs = m.GPUs[:min(len(m.GPUs), maxGPUs)]
		for _, text := range []*string{&m.Driver, &m.CUDA, &m.GPUProblem, &m.Hostname, &m.OS, &m.Arch, &m.Kernel} {
			*text = printable([]byte(*text), maxReason)
		}
		for i := range m.GPUs {
			g := &m.GPUs[i]
			g.UUID, g.Name = printable([]byte(g.UUID), maxReason), printable([]byte(g.Name), maxReason)
			g.Problem = printable([]byte(g.Problem), maxReason)
		}
	}
	return d
}
