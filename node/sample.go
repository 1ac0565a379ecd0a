package node

import (
	"context"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/jetstream"
)

// sampleEnd bounds how long the end of the node waits for a disk that does not answer.
const sampleEnd = time.Second

// sample measures what the machine is doing, until ctx ends. A disk that hangs delays only this:
// heartbeats carry the last sample.
func (n *Node) sample(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(jetstream.SampleInterval)
		defer tick.Stop()
		var meter inventory.Meter
		for {
			m := n.machine.Latest()
			n.sampled.Store(sampleOf(meter.Read(n.cfg.StateDir, m.CPUs), &m))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	<-ctx.Done()
	limit := time.NewTimer(sampleEnd)
	defer limit.Stop()
	select {
	case <-ended:
	case <-limit.C:
	}
	return nil
}

func sampleOf(h inventory.Host, m *inventory.Machine) *jetstream.Sample {
	s := &jetstream.Sample{Load: h.Load, CPU: h.CPU, Memory: h.Memory, Disk: h.Disk}
	for i := range m.GPUs[:min(len(m.GPUs), jetstream.MaxSampledGPUs)] {
		g := &m.GPUs[i]
		memory := inventory.Unknown
		if g.Memory > 0 {
			memory = int(100 * g.MemoryUsed / g.Memory)
		}
		s.GPUs = append(s.GPUs, jetstream.GPUSample{UUID: g.UUID, Busy: g.Utilization, Memory: memory, Temperature: g.Temperature, Power: g.Power})
	}
	return s
}
