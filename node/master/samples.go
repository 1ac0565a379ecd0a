package master

import (
	"bytes"
	"context"
	"encoding/json"
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
	// sampleSlots, minuteSlots and quarterSlots are how many samples are kept of each figure: one for each jetstream.SampleInterval of an hour,
	// for each minute of a day, and for each quarter of an hour of 14 days.
	sampleSlots  = 240
	minuteSlots  = 24 * 60
	quarterSlots = 14 * 24 * 4
	// longestAnswer bounds the samples of one node in an answer: of very many GPUs the newest are given.
	longestAnswer = 128 << 10
	// shownSlots is how many are given of all nodes at one time, and shownBytes how much those of all nodes take at most.
	shownSlots = 120
	shownBytes = 40 << 10
	// keepInterval is how often history keeps all samples, and keepTime bounds the last time.
	keepInterval = 5 * time.Minute
	keepTime     = time.Second
	// longestUUID bounds the name of a GPU.
	longestUUID = 80
)

// ring is how samples of one length are kept.
type ring struct {
	per   int64 // intervals of jetstream.SampleInterval that a sample stands for
	slots int64
	from  int64 // in a strip
}

// rings are from the finest to the coarsest.
var rings = [...]ring{{1, sampleSlots, 0}, {4, minuteSlots, sampleSlots}, {60, quarterSlots, sampleSlots + minuteSlots}}

// ringOf gives the ring of samples of a length.
func ringOf(step time.Duration) (ring, bool) {
	i := slices.IndexFunc(rings[:], func(r ring) bool { return r.step() == step })
	if i < 0 {
		return ring{}, false
	}
	return rings[i], true
}

func (r ring) step() time.Duration { return time.Duration(r.per) * jetstream.SampleInterval }

// samples keeps what the machines of nodes were doing in the last hour, day and 14 days, a byte for each figure and interval: 3 kB of each figure.
// History keeps it over a restart.
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

// strip is one figure over all rings; in each, sample n is at n % slots. noSample is none.
type strip [sampleSlots + minuteSlots + quarterSlots]byte

const noSample = 255

func (s *strip) at(r ring, n int64) *byte { return &s[r.from+n%r.slots] }

// fill marks what begins behind an interval, up to and with another one, as without a sample.
func (s *strip) fill(behind, to int64) {
	for _, r := range rings {
		for n := max(behind/r.per, to/r.per-r.slots) + 1; n <= to/r.per; n++ {
			*s.at(r, n) = noSample
		}
	}
}

// put enters a sample. A longer one is the mean of those of the finest ring in it, which that still has.
func (s *strip) put(interval int64, figure byte) {
	*s.at(rings[0], interval) = figure
	for _, r := range rings[1:] {
		sum, n := int64(0), int64(0)
		for i := interval - interval%r.per; i <= interval; i++ {
			if b := *s.at(rings[0], i); b != noSample {
				sum, n = sum+int64(b), n+1
			}
		}
		mean := byte(noSample)
		if n > 0 {
			mean = byte((sum + n/2) / n)
		}
		*s.at(r, interval/r.per) = mean
	}
}

// last gives the n samples of a ring up to and with the one of an interval.
func (s *strip) last(r ring, n, interval, newest int64) []byte {
	all := make([]byte, n)
	interval, newest = interval/r.per, newest/r.per
	for i := range all {
		at := interval - n + 1 + int64(i)
		if all[i] = noSample; at <= newest && at > newest-r.slots {
			all[i] = *s.at(r, at)
		}
	}
	return all
}

func intervalOf(t time.Time) int64 { return t.UnixNano() / int64(jetstream.SampleInterval) }

// add takes over what a node says. Of several samples in one interval the last counts. When the clock was set back, the samples of later times
// are dropped.
func (s *samples) add(node grid.NodeID, said *jetstream.Sample, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, interval := s.byNode[node], intervalOf(now)
	switch {
	case n == nil:
		n = newNodeSamples(interval)
		s.byNode[node] = n
	case interval < n.newest-1:
		n.rewind(interval)
	default:
		interval = max(interval, n.newest)
		n.advance(interval)
	}
	put := func(strips *[4]strip, figures [4]int) {
		for i, f := range figures {
			strips[i].put(interval, sampleByte(f))
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
				strips[i].fill(never, interval)
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

// never is before all intervals, and newNodeSamples has no sample up to an interval.
const never = -quarterSlots * 60

func newNodeSamples(interval int64) *nodeSamples {
	n := &nodeSamples{newest: interval, gpus: map[string]*[4]strip{}}
	for i := range n.host {
		n.host[i].fill(never, interval)
	}
	return n
}

// advance marks the intervals up to and with the given one as without a sample.
func (n *nodeSamples) advance(interval int64) {
	n.fill(n.newest, interval)
	n.newest = interval
}

// rewind marks the intervals behind the given one as without a sample. What they had overwritten is gone, too.
func (n *nodeSamples) rewind(interval int64) {
	n.fill(interval, n.newest)
	n.newest = interval
}

func (n *nodeSamples) fill(behind, to int64) {
	for i := range n.host {
		n.host[i].fill(behind, to)
	}
	for _, strips := range n.gpus {
		for i := range strips {
			strips[i].fill(behind, to)
		}
	}
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

// of gives the last samples of a node, at most slots.
func (s *samples) of(node grid.NodeID, r ring, slots int64, now time.Time) (api.NodeSamples, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byNode[node]
	if n == nil {
		return api.NodeSamples{}, false
	}
	interval := max(intervalOf(now), n.newest)
	slots = min(slots, r.slots, max(1, longestAnswer/n.figures()))
	last := func(s *strip) []byte { return s.last(r, slots, interval, n.newest) }
	v := api.NodeSamples{
		Node: node, Step: r.step().Seconds(), Until: time.Unix(0, (interval/r.per+1)*int64(r.step())).UTC(), GPUs: []api.GPUSamples{},
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

func (n *nodeSamples) figures() int64 { return 4 + 4*int64(len(n.gpus)) }

// nodes lists the nodes that have samples, and how many figures they have together.
func (s *samples) nodes() (names []grid.NodeID, figures int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, n := range s.byNode {
		names = append(names, node)
		figures += n.figures()
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

// pack gives what is known of a node, for unpack; nil of one that has told nothing.
func (s *samples) pack(node grid.NodeID) ([]byte, error) {
	s.mu.Lock()
	n := s.byNode[node]
	if n == nil {
		s.mu.Unlock()
		return nil, nil
	}
	bytesOf := func(strips *[4]strip) (b [4][]byte) {
		for i := range strips {
			b[i] = bytes.Clone(strips[i][:])
		}
		return b
	}
	k := keptSamples{Newest: n.newest, Host: bytesOf(&n.host), GPUs: make(map[string][4][]byte, len(n.gpus))}
	for uuid, strips := range n.gpus {
		k.GPUs[uuid] = bytesOf(strips)
	}
	s.mu.Unlock()
	return json.Marshal(&k)
}

// unpack takes over what pack has given of some nodes, of those that have told nothing since. What can't be read is left out.
func (s *samples) unpack(all map[grid.NodeID][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, data := range all {
		var k keptSamples
		if s.byNode[node] != nil || json.Unmarshal(data, &k) != nil || k.Newest < -never || len(k.GPUs) > 2*jetstream.MaxSampledGPUs {
			continue
		}
		n, good := newNodeSamples(k.Newest), true
		take := func(strips *[4]strip, b [4][]byte) {
			for i := range strips {
				strips[i].fill(never, k.Newest) // an earlier version has kept the hour alone
				good = good && len(b[i]) >= sampleSlots && len(b[i]) <= len(strips[i])
				copy(strips[i][:], b[i])
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
	names, _ := m.samples.nodes()
	if err := m.cfg.History.PutSamples(ctx, names, m.samples.pack); err != nil && !history.IsFull(err) { // the next time may work
		return err
	}
	return nil
}

// Samples gives what the machine of a node was doing: samples of one of api.SampleSteps. It is false for another, and for a node that has not told.
func (m *Master) Samples(node grid.NodeID, step time.Duration) (api.NodeSamples, bool) {
	r, ok := ringOf(step)
	if !ok {
		return api.NodeSamples{}, false
	}
	return m.samples.of(node, r, r.slots, time.Now())
}

// NodeSamples gives the newest samples of all nodes, fewer of each the more there are.
func (m *Master) NodeSamples() []api.NodeSamples {
	names, figures := m.samples.nodes()
	slots := min(shownSlots, max(1, shownBytes/max(figures, 1)))
	all, now := []api.NodeSamples{}, time.Now()
	for _, node := range names {
		if v, ok := m.samples.of(node, rings[0], slots, now); ok {
			all = append(all, v)
		}
	}
	return all
}
