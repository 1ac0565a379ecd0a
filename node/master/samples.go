package master

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

const (
	// sampleSlots is how many samples are kept of each figure: one for each jetstream.SampleInterval of an hour.
	sampleSlots = 240
	// shownSlots is how many are given of all nodes at one time, and shownBytes how much those of all nodes take at most.
	shownSlots = 120
	shownBytes = 40 << 10
	// keepInterval is how often history keeps all samples, and keepTime bounds the last time.
	keepInterval = 5 * time.Minute
	keepTime     = time.Second
	// longestUUID bounds the name of a GPU.
	longestUUID = 80
)

// samples keeps what the machines of nodes were doing in the last hour, a byte for each figure and interval. History
// keeps it over a restart.
type samples struct {
	mu     sync.Mutex
	byNode map[grid.NodeID]*nodeSamples
}

// nodeSamples are those of one node.
type nodeSamples struct {
	newest int64 // number of the last interval with a sample, since 1970
	host   [4]strip
	gpus   map[string]*[4]strip
}

// strip is one figure over an hour; interval n is at n % sampleSlots. noSample is none.
type strip [sampleSlots]byte

const noSample = 255

func (s *strip) fill(from, to int64) {
	for n := max(from, to-sampleSlots); n < to; n++ {
		s[n%sampleSlots] = noSample
	}
}

// last gives the n intervals up to and with the given one.
func (s *strip) last(n, interval, newest int64) []byte {
	all := make([]byte, n)
	for i := range all {
		at := interval - n + 1 + int64(i)
		if all[i] = noSample; at <= newest && at > newest-sampleSlots {
			all[i] = s[at%sampleSlots]
		}
	}
	return all
}

func intervalOf(t time.Time) int64 { return t.UnixNano() / int64(jetstream.SampleInterval) }

// add takes over what a node says. Of several samples in one interval the last counts, and so it does when the clock was set back.
func (s *samples) add(node grid.NodeID, said *jetstream.Sample, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, interval := s.byNode[node], intervalOf(now)
	if n == nil || interval < n.newest-1 {
		n = &nodeSamples{newest: interval - sampleSlots, gpus: map[string]*[4]strip{}}
		s.byNode[node] = n
	}
	interval = max(interval, n.newest)
	n.advance(interval)
	put := func(strips *[4]strip, figures [4]int) {
		for i, f := range figures {
			strips[i][interval%sampleSlots] = sampleByte(f)
		}
	}
	put(&n.host, [4]int{said.Load, said.CPU, said.Memory, said.Disk})
	for _, g := range said.GPUs[:min(len(said.GPUs), jetstream.MaxSampledGPUs)] {
		uuid := printable.Clip(printable.Line([]byte(g.UUID)), longestUUID)
		strips := n.gpus[uuid]
		if strips == nil {
			n.makeRoom(said.GPUs)
			strips = &[4]strip{}
			for i := range strips {
				strips[i].fill(interval-sampleSlots, interval)
			}
			n.gpus[uuid] = strips
		}
		watts := g.Power
		if watts > 0 {
			watts = (watts + api.WattsOfByte/2) / api.WattsOfByte
		}
		put(strips, [4]int{g.Busy, g.Memory, g.Temperature, watts})
	}
}

// advance marks the intervals up to and with the given one as without a sample.
func (n *nodeSamples) advance(interval int64) {
	for i := range n.host {
		n.host[i].fill(n.newest+1, interval+1)
	}
	for _, strips := range n.gpus {
		for i := range strips {
			strips[i].fill(n.newest+1, interval+1)
		}
	}
	n.newest = interval
}

// makeRoom forgets GPUs that the node does not have any more when there are too many for one more.
func (n *nodeSamples) makeRoom(has []jetstream.GPUSample) {
	if len(n.gpus) < jetstream.MaxSampledGPUs {
		return
	}
	maps.DeleteFunc(n.gpus, func(uuid string, _ *[4]strip) bool {
		return !slices.ContainsFunc(has, func(g jetstream.GPUSample) bool { return g.UUID == uuid })
	})
}

func sampleByte(figure int) byte {
	if figure < 0 {
		return noSample
	}
	return byte(min(figure, noSample-1))
}

func (s *samples) forget(node grid.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byNode, node)
}

// of gives the last slots samples of a node.
func (s *samples) of(node grid.NodeID, slots int64, now time.Time) (api.NodeSamples, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byNode[node]
	if n == nil {
		return api.NodeSamples{}, false
	}
	interval := max(intervalOf(now), n.newest)
	last := func(s *strip) []byte { return s.last(slots, interval, n.newest) }
	v := api.NodeSamples{
		Node: node, Step: jetstream.SampleInterval.Seconds(), Until: time.Unix(0, (interval+1)*int64(jetstream.SampleInterval)).UTC(), GPUs: []api.GPUSamples{},
		Load: last(&n.host[0]), CPU: last(&n.host[1]), Memory: last(&n.host[2]), Disk: last(&n.host[3]),
	}
	for _, uuid := range slices.Sorted(maps.Keys(n.gpus)) {
		g := n.gpus[uuid]
		v.GPUs = append(v.GPUs, api.GPUSamples{
			UUID: uuid, Utilization: last(&g[0]), Memory: last(&g[1]), Temperature: last(&g[2]), Power: last(&g[3]),
		})
	}
	return v, true
}

// nodes lists the nodes that have samples, and how many figures they have together.
func (s *samples) nodes() (names []grid.NodeID, figures int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, n := range s.byNode {
		names = append(names, node)
		figures += 4 + 4*int64(len(n.gpus))
	}
	slices.Sort(names)
	return names, figures
}

// keptSamples is a node's part in what history keeps.
type keptSamples struct {
	Newest int64                `json:"newest"`
	Host   [4][]byte            `json:"host"`
	GPUs   map[string][4][]byte `json:"gpus,omitempty"`
}

// pack gives what is known of each node, for unpack.
func (s *samples) pack() (map[grid.NodeID][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[grid.NodeID][]byte, len(s.byNode))
	bytesOf := func(strips *[4]strip) (b [4][]byte) {
		for i := range strips {
			b[i] = strips[i][:]
		}
		return b
	}
	for node, n := range s.byNode {
		k := keptSamples{Newest: n.newest, Host: bytesOf(&n.host), GPUs: make(map[string][4][]byte, len(n.gpus))}
		for uuid, strips := range n.gpus {
			k.GPUs[uuid] = bytesOf(strips)
		}
		data, err := json.Marshal(&k)
		if err != nil {
			return nil, err
		}
		all[node] = data
	}
	return all, nil
}

// unpack takes over what pack has given, of nodes that have told nothing since. What can't be read is left out.
func (s *samples) unpack(all map[grid.NodeID][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, data := range all {
		var k keptSamples
		if s.byNode[node] != nil || json.Unmarshal(data, &k) != nil || k.Newest < 0 || len(k.GPUs) > 2*jetstream.MaxSampledGPUs {
			continue
		}
		n, good := &nodeSamples{newest: k.Newest, gpus: map[string]*[4]strip{}}, true
		take := func(strips *[4]strip, b [4][]byte) {
			for i := range strips {
				good = good && copy(strips[i][:], b[i]) == sampleSlots
			}
		}
		take(&n.host, k.Host)
		for uuid, b := range k.GPUs {
			n.gpus[uuid] = &[4]strip{}
			take(n.gpus[uuid], b)
		}
		if good {
			s.byNode[node] = n
		}
	}
}

// loadSamples takes over what an earlier life of the master has kept. It is called before nodes are heard.
func (m *Master) loadSamples() error {
	all, err := m.cfg.History.Samples()
	if err == nil {
		m.samples.unpack(all)
	}
	return err
}

// keepSamples has history keep what machines are doing, so that a restart loses little of it.
func (m *Master) keepSamples(ctx context.Context) error {
	if m.cfg.Nodes == nil {
		return nil // nobody tells
	}
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-tick.C:
			err = m.putSamples(ctx)
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.Background(), keepTime) // the master ends
			defer stop()
			return m.putSamples(last)
		}
		if err != nil {
			return err
		}
	}
}

func (m *Master) putSamples(ctx context.Context) error {
	all, err := m.samples.pack()
	if err != nil {
		return fmt.Errorf("pack samples: %w", err)
	}
	if err := m.cfg.History.PutSamples(ctx, all); err != nil && !history.IsFull(err) { // the next time may work
		return err
	}
	return nil
}

// Samples gives what the machine of a node was doing in the last hour; false for a node that has not told.
func (m *Master) Samples(node grid.NodeID) (api.NodeSamples, bool) {
	return m.samples.of(node, sampleSlots, time.Now())
}

// NodeSamples gives the newest samples of all nodes, fewer of each the more there are.
func (m *Master) NodeSamples() []api.NodeSamples {
	names, figures := m.samples.nodes()
	slots := min(shownSlots, max(1, shownBytes/max(figures, 1)))
	all, now := []api.NodeSamples{}, time.Now()
	for _, node := range names {
		if v, ok := m.samples.of(node, slots, now); ok {
			all = append(all, v)
		}
	}
	return all
}
