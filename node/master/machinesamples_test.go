package master

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

func newSamples() *sampleStore { return &sampleStore{byNode: map[grid.NodeID]*nodeSamples{}} }

// TestSamples compares what is kept with all samples that a node has reported, at any times: the
// last of each interval, for an hour.
func TestSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSamples()
		load, power := map[int64]int{}, map[int64]int{} // by interval
		now := time.Unix(1_700_000_000, 0)
		for range rapid.IntRange(1, 60).Draw(t, "samples") {
			now = now.Add(time.Duration(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 5000)).Draw(t,
				"pause")) * time.Second)
			said := jetstream.Sample{Load: rapid.IntRange(-1, 254).Draw(t, "load"), CPU: 7}
			load[intervalOf(now)] = said.Load
			delete(power, intervalOf(now))
			if rapid.Bool().Draw(t, "with a GPU") {
				said.GPUs = []jetstream.GPUSample{{UUID: "g", Power: 8 * rapid.IntRange(0, 254).Draw(t, "power")}}
				power[intervalOf(now)] = said.GPUs[0].Power
			}
			s.add("n", &said, now)
		}
		now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "later")) * time.Second)
		got, ok := s.latest("n", resolutions[0], sampleSlots, now)
		if !ok || len(got.Load) != sampleSlots || got.Until.Before(now) ||
			got.Until.Sub(now) > jetstream.SampleInterval {
			t.Fatalf("at %v got %+v", now, got)
		}
		check := func(what string, got []byte, at map[int64]int, scale int) {
			for i, b := range got {
				want := byte(noSample)
				if v, ok := at[intervalOf(now)-sampleSlots+1+int64(i)]; ok && v >= 0 {
					want = byte(v / scale)
				}
				if b != want {
					t.Fatalf("%s %d intervals before the last: got %d, want %d", what, sampleSlots-1-i, b, want)
				}
			}
		}
		check("load", got.Load, load, 1)
		if len(got.GPUs) > 0 && len(power) > 0 {
			// an interval with a sample in which the GPU was not told of keeps the value of that
			// interval
			for interval := range load {
				if _, told := power[interval]; !told && interval > intervalOf(now)-sampleSlots {
					got.GPUs[0].Power[sampleSlots-1-(intervalOf(now)-interval)] = noSample
				}
			}
			check("power", got.GPUs[0].Power, power, 8)
		}
		few, _ := s.latest("n", resolutions[0], 10, now)
		if !bytes.Equal(few.Load, got.Load[sampleSlots-10:]) {
			t.Fatalf("the last ten: got %v, want %v", few.Load, got.Load[sampleSlots-10:])
		}
	})
}

// TestLongerSamples compares minutes and quarters of an hour with the means of the samples in them,
// over some days with pauses and a restart.
func TestLongerSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now, told := newSamples(), time.Unix(1_700_000_000, 0), map[int64]int{}
		for range rapid.IntRange(1, 300).Draw(t, "samples") {
			now = now.Add(time.Duration(rapid.OneOf(rapid.IntRange(5, 30), rapid.IntRange(5, 200_000)).Draw(t,
				"pause")) * time.Second)
			load := rapid.IntRange(-1, 254).Draw(t, "load")
			s.add("n", &jetstream.Sample{Load: load}, now)
			told[intervalOf(now)] = load
			if rapid.IntRange(0, 50).Draw(t, "restart") == 0 {
				all := packed(t, s)
				s = newSamples()
				s.restore(all)
			}
		}
		for _, r := range resolutions {
			got, ok := s.latest("n", r, r.slots, now)
			if !ok || int64(len(got.Load)) != r.slots || got.Step != r.step().Seconds() || got.Until.Before(now) ||
				got.Until.Sub(now) > r.step() {
				t.Fatalf("every %v: got %d samples every %v s until %v", r.step(), len(got.Load), got.Step, got.Until)
			}
			sums, counts := map[int64]int{}, map[int64]int{}
			for interval, load := range told {
				if load >= 0 {
					sums[interval/r.intervals], counts[interval/r.intervals] = sums[interval/r.intervals]+load,
						counts[interval/r.intervals]+1
				}
			}
			for i, b := range got.Load {
				at, want := intervalOf(now)/r.intervals-r.slots+1+int64(i), byte(noSample)
				if n := counts[at]; n > 0 {
					want = byte((sums[at] + n/2) / n)
				}
				if b != want {
					t.Fatalf("every %v, %d before the last: got %d, want %d", r.step(), len(got.Load)-1-i, b, want)
				}
			}
		}
	})
}

// packed returns what history keeps of samples.
func packed(t interface {
	Helper()
	Fatal(args ...any)
}, s *sampleStore) map[grid.NodeID][]byte {
	t.Helper()
	all := map[grid.NodeID][]byte{}
	for node := range s.byNode {
		data, err := s.marshalNode(node)
		if err != nil {
			t.Fatal(err)
		}
		all[node] = data
	}
	return all
}

// TestSamplesOfEarlierMasters loads an hour that was saved by a master without longer samples.
func TestSamplesOfEarlierMasters(t *testing.T) {
	s, now := newSamples(), time.Unix(1_700_000_000, 0)
	s.add("n", &jetstream.Sample{Load: 42}, now)
	all := packed(t, s)
	var k storedSamples
	if err := json.Unmarshal(all["n"], &k); err != nil {
		t.Fatal(err)
	}
	for i := range k.Host {
		k.Host[i] = k.Host[i][:sampleSlots]
	}
	data, err := json.Marshal(&k)
	if err != nil {
		t.Fatal(err)
	}
	all["n"] = data
	s = newSamples()
	s.restore(all)
	hour, _ := s.latest("n", resolutions[0], 1, now)
	day, ok := s.latest("n", resolutions[1], 3, now)
	if !ok || !bytes.Equal(hour.Load, []byte{42}) || !bytes.Equal(day.Load, []byte{noSample, noSample, noSample}) {
		t.Errorf("got %v and %v", hour.Load, day.Load)
	}
}

// TestClockSetBack sets the clock of the master back by half a minute to a month, after two days:
// samples of earlier times stay, as far as they were not overwritten, and samples of later times
// are gone.
func TestClockSetBack(t *testing.T) {
	const minutes = 2 * 24 * 60
	begin := time.Unix(1_700_000_100, 0).Truncate(15 * time.Minute)
	for _, back := range []time.Duration{30 * time.Second, 10 * time.Minute, 5 * time.Hour, 30 * time.Hour,
		30 * 24 * time.Hour} {
		s, now := newSamples(), begin
		for i := range minutes {
			now = begin.Add(time.Duration(i) * time.Minute)
			s.add("n", &jetstream.Sample{Load: i % 200, GPUs: []jetstream.GPUSample{{UUID: "g", Busy: i % 200}}}, now)
		}
		newest := now
		now = now.Add(-back)
		s.add("n", &jetstream.Sample{Load: 250, GPUs: []jetstream.GPUSample{{UUID: "g", Busy: 250}}}, now)
		got, ok := s.latest("n", resolutions[1], minuteSlots, now)
		if !ok || len(got.GPUs) != 1 {
			t.Fatalf("back by %v: got %d GPUs", back, len(got.GPUs))
		}
		for i := range minuteSlots - 1 { // that of the new sample is the last
			at := now.Truncate(time.Minute).Add(time.Duration(i-minuteSlots+1) * time.Minute)
			want := byte(noSample)
			if !at.Before(begin) && newest.Sub(at) < minuteSlots*time.Minute {
				want = byte(at.Sub(begin) / time.Minute % 200)
			}
			if got.Load[i] != want || got.GPUs[0].Utilization[i] != want {
				t.Fatalf("back by %v: %v has %d and %d, want %d", back, at, got.Load[i],
					got.GPUs[0].Utilization[i], want)
			}
		}
		later, _ := s.latest("n", resolutions[1], minuteSlots, newest)
		for i, b := range later.Load {
			if at := newest.Truncate(time.Minute).Add(time.Duration(i-minuteSlots+1) * time.Minute); at.After(now) &&
				b != noSample {
				t.Fatalf("back by %v: %v has %d, which is of a time that has not come yet", back, at, b)
			}
		}
	}
}

// TestSamplesOfAStrangeNode keeps what a node reports within bounds, whatever it is, and follows a
// clock that was set back.
func TestSamplesOfAStrangeNode(t *testing.T) {
	s, now := newSamples(), time.Unix(1_700_000_000, 0)
	for round := range 20 {
		said := &jetstream.Sample{Load: 1 << 40, CPU: -5, Memory: 1000, Disk: -1 << 40}
		for i := range 200 {
			said.GPUs = append(said.GPUs,
				jetstream.GPUSample{UUID: fmt.Sprint(round, "\x1b[2J", i, strings.Repeat("x", 1000)), Busy: -7,
					Power: 1 << 40, Memory: 300})
		}
		s.add("n", said, now.Add(time.Duration(round)*jetstream.SampleInterval))
	}
	got, _ := s.latest("n", resolutions[0], sampleSlots, now.Add(20*jetstream.SampleInterval))
	if n := len(s.byNode["n"].gpus); n > 2*jetstream.MaxSampledGPUs || len(got.GPUs) != n {
		t.Errorf("got %d GPUs", n)
	}
	if text, err := json.Marshal(got); err != nil || bytes.Contains(text, []byte("\\u001b")) || len(text) > 400<<10 {
		t.Errorf("got %d bytes, %v", len(text), err)
	}
	if got.Load[sampleSlots-2] != noSample-1 || got.CPU[sampleSlots-2] != noSample ||
		got.Disk[sampleSlots-2] != noSample {
		t.Errorf("got %d, %d, %d", got.Load[sampleSlots-2], got.CPU[sampleSlots-2], got.Disk[sampleSlots-2])
	}
	s.add("n", &jetstream.Sample{Load: 7}, now.Add(-24*time.Hour))
	got, _ = s.latest("n", resolutions[0], 2, now.Add(-24*time.Hour))
	if !bytes.Equal(got.Load, []byte{noSample, 7}) || slices.ContainsFunc(got.GPUs, func(g api.GPUSamples) bool {
		return g.Power[1] != noSample
	}) {
		t.Errorf("a day before: got %v and %v", got.Load, got.GPUs)
	}
	s.removeNode("n")
	if _, ok := s.latest("n", resolutions[0], 2, now); ok {
		t.Error("a node that was forgotten has samples")
	}
}

// TestSamplesOfTheNextMaster loads what the master before has saved.
func TestSamplesOfTheNextMaster(t *testing.T) {
	dir, nodes := t.TempDir(), &Nodes{
		Members: func() []cluster.Member { return nil }, Disconnections: func(func(grid.NodeID)) func() {
			return func() {}
		},
	}
	c := startWithNodes(t, dir, 1, nodes)
	c.sampleStore.add("a", &jetstream.Sample{Load: 42}, time.Now())
	c.stopMaster()
	got, ok := startWithNodes(t, dir, 1, nodes).Samples("a", jetstream.SampleInterval)
	if !ok || !bytes.Contains(got.Load, []byte{42}) {
		t.Errorf("got %v", got.Load)
	}
}

// TestSamplesOfManyNodes returns those of all nodes in one answer that stays small.
func TestSamplesOfManyNodes(t *testing.T) {
	for _, c := range []struct{ nodes, gpus, slots int }{{1, 0, maxOverviewSlots}, {8, 8, maxOverviewSlots},
		{100, 8, 11}, {2000, 8, 1}} {
		m := newSamples()
		for i := range c.nodes {
			said := &jetstream.Sample{Load: 5}
			for k := range c.gpus {
				said.GPUs = append(said.GPUs,
					jetstream.GPUSample{UUID: fmt.Sprintf("GPU-%04d%04d-b6a5-2a1c-8c0e-0123456789ab", i, k),
						Busy: inventory.Unknown})
			}
			m.add(grid.NodeID(fmt.Sprint("node-", i)), said, time.Now())
		}
		got := m.NodeSamples()
		if len(got) != c.nodes || len(got[0].Load) != c.slots {
			t.Errorf("of %d nodes got %d with %d samples, want %d samples", c.nodes, len(got),
				len(got[0].Load), c.slots)
		}
	}
}

// TestSamplesOutliveARestart saves and loads samples, and leaves out what is damaged and what is
// known already.
func TestSamplesOutliveARestart(t *testing.T) {
	s, now := newSamples(), time.Unix(1_700_000_000, 0)
	for i := range 300 {
		at := now.Add(time.Duration(i) * jetstream.SampleInterval)
		s.add("a", &jetstream.Sample{Load: i % 200, GPUs: []jetstream.GPUSample{{UUID: "g", Busy: i % 100}}}, at)
	}
	s.add("b", &jetstream.Sample{Load: 7}, now)
	all := packed(t, s)
	all["bad"], all["short"], all["empty"] = []byte("nonsense"),
		[]byte(`{"newest": 5, "host": ["AAA=", "", "", ""]}`), []byte("{}")
	again, later := newSamples(), now.Add(300*jetstream.SampleInterval)
	again.add("b", &jetstream.Sample{Load: 9}, later)
	again.restore(all)
	want, _ := s.latest("a", resolutions[0], sampleSlots, later)
	got, _ := again.latest("a", resolutions[0], sampleSlots, later)
	if diff := cmp.Diff(want, got); diff != "" || len(again.byNode) != 2 {
		t.Errorf("of %d nodes:\n%s", len(again.byNode), diff)
	}
	if got, _ := again.latest("b", resolutions[0], 1, later); got.Load[0] != 9 {
		t.Errorf("what is known already: got %d, want 9", got.Load[0])
	}
}
