package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

var born = time.UnixMilli(1_700_000_000_123)

func TestMetaKeepsWhatOthersDecideBy(t *testing.T) {
	s := Self{
		Version: "1.2.3", Protocol: 2, Roles: []grid.NodeRole{grid.Master, grid.Worker}, APIPort: 7420, NATSPort: 7421,
		CPUs:   1.5,
		Memory: 8 << 30, GPUs: 8,
		Slots: 64, Running: 63, Drained: true, Quarantined: true, Reason: "the fan is broken",
	}
	got, started, _ := decodeMeta(encodeMeta(s, born, false, memberlist.MetaMaxSize))
	if diff := cmp.Diff(s, got); diff != "" || !started.Equal(born) {
		t.Errorf("started %v, want %v, difference:\n%s", started, born, diff)
	}
}

func anySelf(r *rapid.T) Self {
	text := rapid.StringN(0, -1, 3000)
	number := rapid.Int()
	return Self{
		Version: text.Draw(r, "version"), Reason: text.Draw(r, "reason"), Protocol: number.Draw(r, "protocol"),
		Roles: rapid.SliceOf(rapid.Map(text, func(s string) grid.NodeRole { return grid.NodeRole(s) })).Draw(r,
			"roles"),
		APIPort: number.Draw(r, "api"), NATSPort: number.Draw(r, "nats"), Slots: number.Draw(r, "slots"),
		Running: number.Draw(r, "running"),
		GPUs:    number.Draw(r, "gpus"), CPUs: rapid.Float64().Draw(r, "cpus"), Memory: rapid.Int64().Draw(r, "memory"),
		Load: rapid.Float64().Draw(r, "load"), Drained: rapid.Bool().Draw(r, "drained"),
	}
}

// TestAnySelfFits holds the limit that memberlist panics behind.
func TestAnySelfFits(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := anySelf(r)
		limit := rapid.IntRange(1, 2*memberlist.MetaMaxSize).Draw(r, "limit")
		buf := encodeMeta(s, born, false, limit)
		if len(buf) > limit || len(buf) > memberlist.MetaMaxSize {
			r.Fatalf("got %d bytes, want at most %d", len(buf), limit)
		}
		got, started, _ := decodeMeta(buf)
		if limit >= memberlist.MetaMaxSize &&
			(got.Drained != s.Drained || !started.Equal(born) || !utf8.ValidString(got.Reason)) {
			r.Fatalf("got %+v of a life from %v", got, started)
		}
	})
}

func TestReasonIsCutFirst(t *testing.T) {
	s := Self{Version: strings.Repeat("v", 100), Memory: math.MaxInt64, CPUs: 64, Reason: strings.Repeat("é", 400)}
	got, _, _ := decodeMeta(encodeMeta(s, born, false, memberlist.MetaMaxSize))
	if got.Memory != s.Memory || got.CPUs != 64 || len(got.Version) != maxVersion || len(got.Reason) < 300 ||
		!utf8.ValidString(got.Reason) {
		t.Errorf("got %+v", got)
	}
}

func TestUnknownMeta(t *testing.T) {
	future := encodeMeta(Self{Version: "9.0.0", Slots: 3}, born, false, 512)
	future = append(future, 200, 2, 'x', 'y') // a field of tomorrow
	if got, _, _ := decodeMeta(future); got.Version != "9.0.0" || got.Slots != 3 {
		t.Errorf("a field that is not known: got %+v", got)
	}
	future[0] = metaFormat + 1
	if got, started, _ := decodeMeta(future); got.Version != "9.0.0" || got.Slots != 0 || !started.IsZero() {
		t.Errorf("a format that is not known: got %+v", got)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add(encodeMeta(Self{Version: "1", Reason: "x", Roles: []grid.NodeRole{grid.Worker}}, born, false, 512))
	f.Add([]byte{metaFormat, tagReason, 3, 0x1b, '[', 'm'})
	f.Fuzz(func(t *testing.T, buf []byte) {
		s, started, leaving := decodeMeta(buf)
		if strings.ContainsAny(s.Version+s.Reason, "\x1b\n\x00") {
			t.Errorf("got control characters in %+v", s)
		}
		if len(encodeMeta(s, started, leaving, memberlist.MetaMaxSize)) > memberlist.MetaMaxSize {
			t.Error("got too many bytes")
		}
	})
}

func TestDetails(t *testing.T) {
	m := &inventory.Machine{CPUs: 4,
		Driver: "550", GPUs: []inventory.GPU{{UUID: "GPU-1", Name: "A100", Memory: 40 << 30}}}
	m.Groups = inventory.GroupsOf(m.GPUs)
	one := newDetail("a", born, Self{Load: 0.5, Reason: "why", Inventory: m}, 7)
	long := strings.Repeat("<", maxDetail)
	huge := newDetail("b", born, Self{Load: math.NaN(), Reason: long, Inventory: &inventory.Machine{
		Driver: long, CUDA: long, GPUProblem: long, Hostname: long, OS: long, Arch: long, Kernel: long,
		GPUs: []inventory.GPU{{Name: long}}, Groups: []inventory.Group{{Model: long}},
	}}, 1)
	got := decodeDetails(encodeDetails([]*detail{one, huge}))
	if len(got) != 2 || got[0].Serial != 7 || got[0].Started != born.UnixMilli() || got[1].Inventory == nil ||
		got[1].Node != "b" {
		t.Fatalf("got %+v", got)
	}
	if diff := cmp.Diff(m, got[0].Inventory); diff != "" {
		t.Error(diff)
	}
	future := &detail{Node: "c", raw: []byte(`{"node":"c","serial":1,"tomorrow":{"x":1}}`)}
	if got := decodeDetails(encodeDetails([]*detail{future})); len(got) != 1 ||
		string(got[0].raw) != string(future.raw) {
		t.Errorf("a field that is not known: got %+v", got)
	}
}

func TestDetailsAreBounded(t *testing.T) {
	big := &detail{Node: "a", raw: []byte(`{"node":"a","reason":"` + strings.Repeat("x", maxDetail) + `"}`)}
	if got := decodeDetails(encodeDetails([]*detail{big})); len(got) != 0 {
		t.Error("took a record that is too long")
	}
	many := make([]*detail, 2000)
	for i := range many {
		many[i] = &detail{raw: []byte(`{"node":"a","reason":"` + strings.Repeat("x", maxDetail-100) + `"}`)}
	}
	if buf := encodeDetails(many); len(buf) > maxDetails {
		t.Errorf("got %d bytes, want at most %d", len(buf), maxDetails)
	}
}

// TestLargeInventories shortens what does not fit, from the end, and drops nothing as a whole:
// whatever a machine has, others learn how many devices of each kind.
func TestLargeInventories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 300, -1)
		m := &inventory.Machine{CPUs: 4, Driver: text.Draw(t, "driver"), GPUProblem: text.Draw(t, "problem")}
		total, kinds := 0, rapid.IntRange(1, 8).Draw(t, "kinds")
		for i := range rapid.IntRange(0, 64).Draw(t, "gpus") {
			g := inventory.GPU{
				Index: i, UUID: "GPU-" + strings.Repeat("0", 36),
				Name: fmt.Sprintf("NVIDIA A100-%d", i%kinds), Memory: 40 << 30,
				Why: text.Draw(t, "why"), Trials: []string{"sweep-1/17"},
			}
			if n := rapid.IntRange(0, 7).Draw(t, "instances"); n > 0 {
				g.MIG = true
				g.Instances = slices.Repeat([]inventory.Instance{{UUID: "MIG-" + strings.Repeat("0", 36),
					Profile: "1g.5gb", Memory: 5 << 30}}, n)
				total += n
			} else {
				total++
			}
			m.GPUs = append(m.GPUs, g)
		}
		m.Groups = inventory.GroupsOf(m.GPUs)
		before := len(m.GPUs)
		got := decodeDetails(encodeDetails([]*detail{newDetail("a", born, Self{Inventory: m}, 1)}))
		if len(got) != 1 || got[0].Inventory == nil {
			t.Fatalf("the record of %d GPUs is dropped", before)
		}
		in, counted := got[0].Inventory, 0
		for _, g := range in.Groups {
			counted += g.Total
		}
		if counted != total || in.More != (len(in.GPUs) < before) || len(m.GPUs) != before || m.More {
			t.Errorf("got %d of %d devices in groups, %d of %d GPUs, more: %v", counted, total,
				len(in.GPUs), before, in.More)
		}
		if in.More && len(got[0].raw) < maxDetail-4096 {
			t.Errorf("%d bytes are left unused", maxDetail-len(got[0].raw))
		}
	})
}

func FuzzDetails(f *testing.F) {
	f.Add(encodeDetails([]*detail{newDetail("a", born,
		Self{Inventory: &inventory.Machine{GPUs: make([]inventory.GPU, 3)}}, 1)}))
	f.Add([]byte{detailFormat, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, buf []byte) {
		for _, d := range decodeDetails(buf) {
			if len(d.raw) > maxDetail || len(d.Reason) > maxReason || d.Inventory != nil &&
				len(d.Inventory.GPUs) > maxGPUs {
				t.Errorf("got %+v", d)
			}
		}
	})
}
