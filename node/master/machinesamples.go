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
	"mlfnode/node/poll"
)

const (
	// sampleSlots, minuteSlots and quarterSlots are how many samples are kept of each figure: one
	// for each jetstream.SampleInterval of an hour, for each minute of a day, and for each quarter
	// of an hour of 14 days.
	sampleSlots  = 240
	minuteSlots  = 24 * 60
	quarterSlots = 14 * 24 * 4
	// maxAnswerBytes bounds the samples of one node in an answer: of very many GPUs only the newest
	// samples are returned.
	maxAnswerBytes = 128 << 10
	// maxOverviewSlots and maxOverviewBytes bound the overview of all nodes: the samples of each
	// node, and the size of all of them together.
	maxOverviewSlots = 120
	maxOverviewBytes = 40 << 10
	// saveInterval is how often all samples are saved in history, and saveTimeout bounds the last
	// save.
	saveInterval = 5 * time.Minute
	saveTimeout  = time.Second
	// maxUUID bounds the name of a GPU.
	maxUUID = 80
)

// resolution is the length of samples, and where in a series they are kept.
type resolution struct {
	intervals int64 // intervals of jetstream.SampleInterval that a sample covers
	slots     int64
	offset    int64 // in a series
}

// resolutions are ordered from the finest to the coarsest.
var resolutions = [...]resolution{
	{1, sampleSlots, 0}, {4, minuteSlots, sampleSlots}, {60, quarterSlots, sampleSlots + minuteSlots},
}

func (r resolution) step() time.Duration {
	return time.Duration(r.intervals) * jetstream.SampleInterval
}

// sampleStore keeps how busy the machines of nodes were in the last hour, day and 14 days, a byte
// for each figure and interval: 3 kB for each figure. History keeps it over a restart.
type sampleStore struct {
	db *history.DB

	mu     sync.Mutex
	byNode map[grid.NodeID]*nodeSamples
}

// nodeSamples are the samples of one node.
type nodeSamples struct {
	newest int64 // number of the last interval with a sample, since 1970
	host   [4]series
	gpus   map[string]*[4]series
}

// series is one figure in all resolutions, each a ring: sample n is at n % slots. noSample marks a
// missing sample.
type series [sampleSlots + minuteSlots + quarterSlots]byte

const noSample = 255

func (s *series) slot(r resolution, n int64) *byte { return &s[r.offset+n%r.slots] }

// clearRange marks the intervals after one, up to and including another one, as without a sample.
func (s *series) clearRange(behind, to int64) {
	for _, r := range resolutions {
		for n := max(behind/r.intervals, to/r.intervals-r.slots) + 1; n <= to/r.intervals; n++ {
			*s.slot(r, n) = noSample
		}
	}
}

// record sets a sample. A longer one is the mean of the samples of the finest resolution in it, as
// far as they are still kept.
func (s *series) record(interval int64, figure byte) {
	*s.slot(resolutions[0], interval) = figure
	for _, r := range resolutions[1:] {
		sum, n := int64(0), int64(0)
		for i := interval - interval%r.intervals; i <= interval; i++ {
			if b := *s.slot(resolutions[0], i); b != noSample {
				sum, n = sum+int64(b), n+1
			}
		}
		mean := byte(noSample)
		if n > 0 {
			mean = byte((sum + n/2) / n)
		}
		*s.slot(r, interval/r.intervals) = mean
	}
}

// last returns the n samples of a resolution that end with the given interval.
func (s *series) last(r resolution, n, interval, newest int64) []byte {
	all := make([]byte, n)
	interval, newest = interval/r.intervals, newest/r.intervals
	for i := range all {
		at := interval - n + 1 + int64(i)
		if all[i] = noSample; at <= newest && at > newest-r.slots {
			all[i] = *s.slot(r, at)
		}
	}
	return all
}

func intervalOf(t time.Time) int64 { return t.UnixNano() / int64(jetstream.SampleInterval) }

// add records what a node reports. Of several samples in one interval the last counts. When the
// clock was set back, the samples of later times are dropped.
func (s *sampleStore) add(node grid.NodeID, said *jetstream.Sample, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, interval := s.byNode[node], intervalOf(now)
	switch {
	case n == nil:
		n = newNodeSamples(interval)
		s.byNode[node] = n
	case interval < n.newest-1: // the samples that those of later times had overwritten are lost, too
		n.clearRange(interval, n.newest)
		n.newest = interval
	default:
		interval = max(interval, n.newest)
		n.clearRange(n.newest, interval)
		n.newest = interval
	}
	put := func(strips *[4]series, figures [4]int) {
		for i, f := range figures {
			figure := byte(noSample) // of one that is not known
			if f >= 0 {
				figure = byte(min(f, noSample-1))
			}
			strips[i].record(interval, figure)
		}
	}
	put(&n.host, [4]int{said.Load, said.CPU, said.Memory, said.Disk})
	for _, g := range said.GPUs[:min(len(said.GPUs), jetstream.MaxSampledGPUs)] {
		uuid := printable.Clip(printable.Line([]byte(g.UUID)), maxUUID)
		strips := n.gpus[uuid]
		if strips == nil {
			n.dropMissingGPUs(said.GPUs)
			strips = &[4]series{}
			for i := range strips {
				strips[i].clearRange(never, interval)
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

// never is before all intervals.
const never = -quarterSlots * 60

func newNodeSamples(interval int64) *nodeSamples {
	n := &nodeSamples{newest: interval, gpus: map[string]*[4]series{}}
	for i := range n.host {
		n.host[i].clearRange(never, interval)
	}
	return n
}

func (n *nodeSamples) clearRange(behind, to int64) {
	for i := range n.host {
		n.host[i].clearRange(behind, to)
	}
	for _, strips := range n.gpus {
		for i := range strips {
			strips[i].clearRange(behind, to)
		}
	}
}

// dropMissingGPUs forgets GPUs that the node no longer has when there are too many for one more.
func (n *nodeSamples) dropMissingGPUs(has []jetstream.GPUSample) {
	if len(n.gpus) < jetstream.MaxSampledGPUs {
		return
	}
	maps.DeleteFunc(n.gpus, func(uuid string, _ *[4]series) bool {
		return !slices.ContainsFunc(has, func(g jetstream.GPUSample) bool { return g.UUID == uuid })
	})
}

func (s *sampleStore) removeNode(node grid.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byNode, node)
}

// latest returns the last samples of a node, at most slots.
func (s *sampleStore) latest(node grid.NodeID, r resolution, slots int64, now time.Time) (api.NodeSamples, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.byNode[node]
	if n == nil {
		return api.NodeSamples{}, false
	}
	interval := max(intervalOf(now), n.newest)
	slots = min(slots, r.slots, max(1, maxAnswerBytes/n.countSeries()))
	last := func(s *series) []byte { return s.last(r, slots, interval, n.newest) }
	v := api.NodeSamples{
		Node: node, Step: r.step().Seconds(), GPUs: []api.GPUSamples{},
		Until: time.Unix(0, (interval/r.intervals+1)*int64(r.step())).UTC(),
		Load:  last(&n.host[0]), CPU: last(&n.host[1]), Memory: last(&n.host[2]), Disk: last(&n.host[3]),
	}
	for _, uuid := range slices.Sorted(maps.Keys(n.gpus)) {
		g := n.gpus[uuid]
		v.GPUs = append(v.GPUs, api.GPUSamples{
			UUID: uuid, Utilization: last(&g[0]), Memory: last(&g[1]), Temperature: last(&g[2]), Power: last(&g[3]),
		})
	}
	return v, true
}

func (n *nodeSamples) countSeries() int64 { return 4 + 4*int64(len(n.gpus)) }

// list returns the nodes that have samples, and how many series they have together.
func (s *sampleStore) list() (names []grid.NodeID, figures int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, n := range s.byNode {
		names = append(names, node)
		figures += n.countSeries()
	}
	slices.Sort(names)
	return names, figures
}

// storedSamples is a node's part of what history keeps.
type storedSamples struct {
	Newest int64                `json:"newest"`
	Host   [4][]byte            `json:"host"`
	GPUs   map[string][4][]byte `json:"gpus,omitempty"`
}

// marshalNode returns what is known of a node, for restore; nil for a node without samples.
func (s *sampleStore) marshalNode(node grid.NodeID) ([]byte, error) {
	s.mu.Lock()
	n := s.byNode[node]
	if n == nil {
		s.mu.Unlock()
		return nil, nil
	}
	bytesOf := func(strips *[4]series) (b [4][]byte) {
		for i := range strips {
			b[i] = bytes.Clone(strips[i][:])
		}
		return b
	}
	k := storedSamples{Newest: n.newest, Host: bytesOf(&n.host), GPUs: make(map[string][4][]byte, len(n.gpus))}
	for uuid, strips := range n.gpus {
		k.GPUs[uuid] = bytesOf(strips)
	}
	s.mu.Unlock()
	return json.Marshal(&k)
}

// restore loads what marshalNode has returned for some nodes, except for nodes that have reported
// since. It leaves out what it can't read.
func (s *sampleStore) restore(all map[grid.NodeID][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for node, data := range all {
		var k storedSamples
		if s.byNode[node] != nil || json.Unmarshal(data, &k) != nil {
			continue
		}
		if k.Newest < -never || len(k.GPUs) > 2*jetstream.MaxSampledGPUs {
			continue
		}
		n, good := newNodeSamples(k.Newest), true
		take := func(strips *[4]series, b [4][]byte) {
			for i := range strips {
				strips[i].clearRange(never, k.Newest) // an earlier version kept only the hour
				good = good && len(b[i]) >= sampleSlots && len(b[i]) <= len(strips[i])
				copy(strips[i][:], b[i])
			}
		}
		take(&n.host, k.Host)
		for uuid, b := range k.GPUs {
			n.gpus[uuid] = &[4]series{}
			take(n.gpus[uuid], b)
		}
		if good {
			s.byNode[node] = n
		}
	}
}

// saveRegularly saves the samples in history, so that a restart loses few of them.
func (s *sampleStore) saveRegularly(ctx context.Context) error {
	for poll.Sleep(ctx, saveInterval) {
		if err := s.save(ctx); err != nil {
			return err
		}
	}
	last, stop := context.WithTimeout(context.Background(), saveTimeout) // the master ends
	defer stop()
	return s.save(last)
}

func (s *sampleStore) save(ctx context.Context) error {
	names, _ := s.list()
	err := s.db.StoreSamples(ctx, names, s.marshalNode)
	if history.IsFull(err) {
		return nil // the next save may succeed
	}
	return err
}

// Samples returns how busy the machine of a node was, in samples of one of api.SampleSteps. It
// returns false for another step, and for a node without samples.
func (s *sampleStore) Samples(node grid.NodeID, step time.Duration) (api.NodeSamples, bool) {
	i := slices.IndexFunc(resolutions[:], func(r resolution) bool { return r.step() == step })
	if i < 0 {
		return api.NodeSamples{}, false
	}
	return s.latest(node, resolutions[i], resolutions[i].slots, time.Now())
}

// NodeSamples returns the newest samples of all nodes, fewer of each the more nodes there are.
func (s *sampleStore) NodeSamples() []api.NodeSamples {
	names, figures := s.list()
	slots := min(maxOverviewSlots, max(1, maxOverviewBytes/max(figures, 1)))
	all, now := []api.NodeSamples{}, time.Now()
	for _, node := range names {
		if v, ok := s.latest(node, resolutions[0], slots, now); ok {
			all = append(all, v)
		}
	}
	return all
}
