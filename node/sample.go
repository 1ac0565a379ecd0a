package node

import (
	"context"
	"sync/atomic"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/jetstream"
)

// sampleEnd bounds how long the end of the node waits for a disk that does not answer.
const sampleEnd = time.Second

// sampler measures what the machine is doing.
type sampler struct {
	last atomic.Pointer[jetstream.Sample]
}

// run measures until ctx ends; machine returns the machine as it is now. A disk that hangs delays
// only this: heartbeats carry the last sample.
func (s *sampler) run(ctx context.Context, machine func() inventory.Machine, stateDir string) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(jetstream.SampleInterval)
		defer tick.Stop()
		var meter inventory.Meter
		for {
			m := machine()
			s.last.Store(sampleOf(meter.Read(stateDir, m.CPUs), &m))
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
		s.GPUs = append(s.GPUs, jetstream.GPUSample{UUID: g.UUID, Busy: g.Utilization, Memory: memory,
			Temperature: g.Temperature, Power: g.Power})
	}
	return s
}
