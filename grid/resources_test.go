package grid

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestMilli parses amounts as records, projects and people write them, and formats them as decimal
// numbers.
func TestMilli(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "1.0": "1", "0.5": "0.5", "0.125": "0.125", "1e3": "1000", "5e-1": "0.5",
		"0": "0", "-0": "0", "0.0005": "0.001",
		"0.3333": "0.333", "0.6666": "0.667", "1e-9": "0.001", "1000000": "1000000", "1e300": "1000000.001",
		"1e999": "1000000.001",
		"-5":    "-0.001", "1.001": "1.001",
	} {
		var m Milli
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if b, err := json.Marshal(m); err != nil || string(b) != want {
			t.Errorf("%s: written as %s, %v; want %s", text, b, err, want)
		}
		if m > 0 && m <= MaxMilli {
			if again, err := ParseMilli(m.String()); err != nil || again != m {
				t.Errorf("%s: read again as %v, %v", text, again, err)
			}
		}
	}
	for _, text := range []string{`"1"`, `""`, `true`, `[1]`, `{}`} {
		var m Milli
		if json.Unmarshal([]byte(text), &m) == nil {
			t.Errorf("%s was read as %v", text, m)
		}
	}
	for _, text := range []string{"", "x", "0x1", "1_0", "NaN", "1 2", "0x1p-2"} {
		if m, err := ParseMilli(text); err == nil {
			t.Errorf("%q was read as %v", text, m)
		}
	}
}

// TestResourcesOfOldRecords decodes resources that earlier versions wrote and encodes the same
// text.
func TestResourcesOfOldRecords(t *testing.T) {
	for _, text := range []string{
		`{"cpus":1}`, `{"cpus":0.5,"memory":1073741824}`, `{"cpus":1,"gpus":0.25,"gpu_memory":8589934592}`,
		`{"cpus":1.5,"gpus":2}`,
	} {
		var r Resources
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if b, err := json.Marshal(r); err != nil || string(b) != text {
			t.Errorf("%s: written as %s, %v", text, b, err)
		}
	}
}

// TestResourcesThatCannotBe checks the subject of each refusal.
func TestResourcesThatCannotBe(t *testing.T) {
	for want, r := range map[string]Resources{
		"cpus is 0":                             {},
		"cpus is -0.001":                        {CPUs: -1},
		"cpus is 1000000.001, which is not":     {CPUs: MaxMilli + 1},
		"gpus is -0.001":                        {CPUs: One, GPUs: -1},
		"memory is -1":                          {CPUs: One, Memory: -1},
		"gpu_memory is -2":                      {CPUs: One, GPUMemory: -2},
		"gpus is 1.5: above 1 it must":          {CPUs: One, GPUs: 1500},
		"gpus is 1.001: above 1 it must":        {CPUs: One, GPUs: 1001},
		"names a MIG instance, and gpus is 2":   {CPUs: One, GPUs: 2 * One, GPUProfile: "1g.10gb"},
		"names a MIG instance, and gpus is 0.5": {CPUs: One, GPUs: 500, GPUProfile: "1g.10gb"},
		"no GPU is asked for":                   {CPUs: One, GPUModel: "A100"},
		"gpu_model":                             {CPUs: One, GPUs: One, GPUModel: "A\n100"},
		"gpu_profile":                           {CPUs: One, GPUProfile: strings.Repeat("x", 300)},
	} {
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", r, err, want)
		}
	}
	for _, r := range []Resources{
		{CPUs: 1}, {CPUs: MaxMilli}, {CPUs: One, GPUs: 999}, {CPUs: One, GPUs: One},
		{CPUs: One, GPUs: 8 * One, GPUMemory: 40 << 30, GPUModel: "A100"},
		{CPUs: One, GPUMemory: 1}, {CPUs: One, GPUProfile: "1g.10gb"}, {CPUs: One, GPUs: One, GPUProfile: "1g.10gb"},
	} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// TestLanesDoNotCollide makes lanes of similar random requests: their names are equal exactly when
// the requests are.
func TestLanesDoNotCollide(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	one := func(all ...string) string { return all[rng.IntN(len(all))] }
	type request struct {
		priority int
		r        Resources
		image    string
	}
	seen := map[Lane]request{}
	names := map[request]Lane{}
	for range 20_000 {
		q := request{rng.IntN(3) - 1, Resources{
			CPUs: Milli(1000 + rng.IntN(3)), Memory: rng.Int64N(2), GPUs: Milli(rng.IntN(3)), GPUMemory: rng.Int64N(2),
			GPUProfile: one("", "", "a", "a_b", `"`, "0"), GPUModel: one("", "", "b", `a"_"`, "_", "0"),
		}, one("", "", "x", "x:1", "_", "\n")}
		lane := LaneOf(q.priority, q.r, q.image)
		if other, ok := seen[lane]; ok && other != q {
			t.Fatalf("%+v and %+v are both %s", q, other, lane)
		}
		if name, ok := names[q]; ok && name != lane {
			t.Fatalf("%+v is %s and %s", q, lane, name)
		}
		seen[lane], names[q] = q, lane
	}
	if got := LaneOf(-5, Resources{CPUs: 1500, Memory: 1 << 30}, ""); got != "p-5_c1500_m1073741824_g0_v0" {
		t.Errorf("lane of an older version: got %s", got)
	}
}
