package packing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlfnode/grid"
)

const gb = 1 << 30

// learned returns an estimate from three trials that ran alone.
func learned(device, peak int64) *Estimate {
	e := &Estimate{Device: device}
	for range Trials {
		e.Learn(Attempt{Peak: peak, Wall: time.Minute, Succeeded: true}, Trials)
	}
	return e
}

func TestLearning(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		attempt  Attempt
		learning bool
		n        int
		says     string
	}{
		{"fits eight times", Attempt{Peak: 5 * gb, Wall: time.Minute, Succeeded: true}, false, 8,
			"8 trials on a GPU, 6.0 GiB each"},
		{"fits three times", Attempt{Peak: 20 * gb, Wall: time.Minute, Succeeded: true}, false, 3,
			"3 trials on a GPU, 23.2 GiB each"},
		{"fits once", Attempt{Peak: 40 * gb, Wall: time.Minute, Succeeded: true}, false, 1,
			"a trial needs 46.2 GiB of 80.0 GiB"},
		{"uses all", Attempt{Peak: 80 * gb, Wall: time.Minute, Succeeded: true}, false, 1,
			"a trial needs 80.0 GiB of 80.0 GiB"},
		{"busy half of the time", Attempt{Peak: gb, Busy: 50, Wall: time.Minute, Succeeded: true}, false, 2,
			"2 trials on a GPU"},
		{"always busy", Attempt{Peak: gb, Busy: 97, Wall: time.Minute, Succeeded: true}, false, 1,
			"keeps it busy for 97 %"},
		{"too short", Attempt{Peak: gb, Wall: 9 * time.Second, Succeeded: true}, false, 1, "too soon to be measured"},
		{"no GPU used", Attempt{Wall: time.Minute, Succeeded: true}, false, 1, "set gpus: 0"},
		{"fails", Attempt{Peak: gb, Wall: time.Minute}, true, 1, "until more trials are measured: 0 so far"},
		{"out of memory on a whole device", Attempt{Peak: gb, Wall: time.Minute, OutOfMemory: true}, true, 1,
			"until more trials"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := &Estimate{Device: 80 * gb}
			for i := range Trials {
				if n, _, share := e.Fit(Step); n != 1 || share != grid.One || !e.Learning(Trials) {
					t.Fatalf("after %d trials: %d trials with %s, learning %v; want a whole device each", i, n, share,
						e.Learning(Trials))
				}
				e.Learn(c.attempt, Trials)
			}
			if n, _, _ := e.Fit(Step); n != c.n || e.Learning(Trials) != c.learning ||
				!strings.Contains(e.String(), c.says) {
				t.Errorf("got %d trials on a device, learning %v, %q; want %d, %v, %q", n, e.Learning(Trials), e, c.n,
					c.learning, c.says)
			}
		})
	}
}

// TestFitsTogether checks that trials that share a device fit together, whatever was learned in
// whatever order.
func TestFitsTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		device := rapid.Int64Range(1, 1<<45).Draw(t, "device")
		e := (&Estimates{}).For("A100", "", device)
		for i := range rapid.IntRange(1, 80).Draw(t, "attempts") {
			a := Attempt{
				Peak: rapid.Int64().Draw(t, "peak"), Busy: rapid.Int().Draw(t, "busy"),
				Asked: rapid.Int64().Draw(t, "asked"),
				Wall:  time.Duration(rapid.Int64().Draw(t, "wall")), Succeeded: rapid.Bool().Draw(t, "succeeded"),
				OutOfMemory: rapid.IntRange(0, 9).Draw(t, "end") == 0,
			}
			if rapid.Bool().Draw(t, "sane") {
				a.Peak, a.Wall, a.Busy = device/rapid.Int64Range(1, 20).Draw(t, "part"), time.Minute, 10
			}
			if n, _, _ := e.Fit(Step); n > 1 {
				a.Share = e.Memory
			}
			before := *e
			e.Learn(a, Trials)
			n, _, share := e.Fit(Step)
			switch {
			case int64(n)*e.Memory > device && n > 1, grid.Milli(n)*share > grid.One, n < 1 ||
				n > MaxShared, share <= 0:
				t.Fatalf("attempt %d: %d trials with %s and %d bytes each on a device of %d", i, n, share, e.Memory,
					device)
			case e.Peak > e.Memory && e.Memory > 0:
				t.Fatalf("attempt %d: a trial gets %d although one has used %d", i, e.Memory, e.Peak)
			case e.Memory < before.Memory:
				t.Fatalf("attempt %d: the estimate goes from %d back to %d", i, before.Memory, e.Memory)
			case a.OutOfMemory && a.Share > 0 && a.Share == before.Memory &&
				e.Memory <= before.Memory && e.Memory < device:
				t.Fatalf("attempt %d ran out of memory and the estimate stays %d", i, e.Memory)
			}
			_ = e.String()
		}
	})
}

// TestOneRaiseForAll checks that the estimate is raised once if all trials of one device run out of
// memory together.
func TestOneRaiseForAll(t *testing.T) {
	t.Parallel()
	e := learned(80*gb, 8*gb)
	given := e.Memory
	for range 7 {
		e.Learn(Attempt{Share: given, Peak: 8 * gb, OutOfMemory: true}, Trials)
	}
	if want := roundUp(given*5/4, Step); e.Memory != want {
		t.Errorf("got %d, want %d", e.Memory, want)
	}
	e.Learn(Attempt{Share: given, Peak: 8 * gb, Asked: 12 * gb, OutOfMemory: true}, Trials)
	if e.Memory != 20*gb {
		t.Errorf("got %d, want what the program had and asked for: 20 GiB", e.Memory)
	}
}

func TestEstimatesAreBounded(t *testing.T) {
	t.Parallel()
	var all Estimates
	for i := range 1000 {
		e := all.For(fmt.Sprint("model ", i%2), fmt.Sprint(i), gb)
		e.Learn(Attempt{Peak: gb / 2, Wall: time.Minute, Succeeded: true}, TrialsByValue)
		if all.Find(e.Model, fmt.Sprint(i)) == nil {
			t.Fatalf("value %d is not found again", i)
		}
	}
	if len(all) > maxEstimates+2 {
		t.Errorf("%d estimates are kept", len(all))
	}
	for i := range 1000 {
		if e := all.For(fmt.Sprint("another ", i),
			"", gb); (e != nil) != (all.Find(fmt.Sprint("another ", i), "") != nil) {
			t.Fatalf("model %d: got %+v, which is not found again", i, e)
		}
	}
	if len(all) > maxEstimates+maxModels {
		t.Errorf("%d estimates of many models are kept", len(all))
	}
}

func TestAsked(t *testing.T) {
	t.Parallel()
	cases := map[string]int64{
		"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB": 2 * gb,
		"CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.76 GiB total capacity":                               20 << 20,
		"failed to allocate 2.5G (2684354560 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY":                               5 * gb / 2,
		"RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes.":                                  64 * gb,
		"cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 1,073,741,824 bytes (allocated so far: 12 bytes)":   gb,
		"Tried to allocate 1.00 GiB\nretrying\nTried to allocate 3.00 GiB":                                               3 * gb,

		"Tried to allocate 9999999999999999999999 GiB": maxDevice,
		"CUDA error: out of memory":                    0, "": 0, "Tried to allocate nothing": 0,
	}
	for words, want := range cases {
		if got := Asked(words); got != want {
			t.Errorf("%q: got %d, want %d", words, got, want)
		}
	}
}

// program is a kind of trial in a simulation.
type program struct {
	name  string
	work  int                      // run time of a trial alone, in seconds
	busy  int                      // utilisation of the device by a trial alone, in percent
	needs func(done float64) int64 // memory as a function of progress
}

// simulation runs trials of one program on devices, second by second, as the master and the nodes
// would.
type simulation struct {
	program
	e         *Estimate
	devices   [][]*trial
	waiting   []*trial
	seconds   int // time until all trials have ended
	oom, most int
	worst     int // most retries of one trial for lack of memory
	alone     bool
}

type trial struct {
	share      int64
	milli      grid.Milli
	done       float64
	used, peak int64
	busy       float64
	wall, free int
}

const simulated = 40 * gb

func simulate(p program, trials, devices int, alone bool, seed uint64) *simulation {
	random := rand.New(rand.NewPCG(seed, 1))
	s := &simulation{program: p, e: &Estimate{Device: simulated}, devices: make([][]*trial, devices), alone: alone}
	for range trials {
		s.waiting = append(s.waiting, &trial{})
	}
	for left := trials; left > 0 && s.seconds < 1e7; s.seconds++ {
		for s.place() {
		}
		for d := range s.devices {
			random.Shuffle(len(s.devices[d]), func(i, j int) {
				s.devices[d][i], s.devices[d][j] = s.devices[d][j], s.devices[d][i]
			})
			left -= s.second(d)
		}
	}
	return s
}

// place starts the next trial on a device where it fits.
func (s *simulation) place() bool {
	if len(s.waiting) == 0 {
		return false
	}
	t := s.waiting[0]
	n, _, milli := s.e.Fit(Step)
	t.share, t.milli = s.e.Memory, milli
	if s.alone || n == 1 || s.e.Learning(Trials) || t.free >= 2 {
		t.share, t.milli = 0, grid.One
	}
	best := -1
	for d, on := range s.devices {
		memory, sum := t.share, t.milli
		for _, o := range on {
			memory, sum = memory+o.share, sum+o.milli
		}
		if len(on) < MaxShared && sum <= grid.One && memory <= simulated &&
			(best < 0 || len(on) > len(s.devices[best])) {
			best = d
		}
	}
	if best < 0 {
		return false
	}
	s.waiting = s.waiting[1:]
	s.devices[best] = append(s.devices[best], t)
	s.most = max(s.most, len(s.devices[best]))
	return true
}

// second runs the trials of one device for a second, and returns how many have ended for good.
func (s *simulation) second(d int) (ended int) {
	on, total := s.devices[d], 0.0
	for range on {
		total += float64(s.busy) / 100
	}
	var stay []*trial
	for i, t := range on {
		rate := min(1, 1/max(total, 1e-9))
		t.done += rate / float64(s.work)
		t.wall++
		t.busy += rate * float64(s.busy)
		want := s.needs(min(t.done, 1))
		others := int64(0)
		for j, o := range on {
			if j != i {
				others += o.used
			}
		}
		a := Attempt{Share: t.share, Busy: int(t.busy) / t.wall, Wall: time.Duration(t.wall) * time.Second}
		switch {
		case want+others > simulated:
			a.Peak, a.Asked, a.OutOfMemory = t.peak, want-t.used, true
			s.e.Learn(a, Trials)
			s.oom++
			t.free++
			s.worst = max(s.worst, t.free)
			*t = trial{free: t.free}
			s.waiting = append([]*trial{t}, s.waiting...)
			continue
		case t.done >= 1:
			a.Peak, a.Succeeded = max(t.peak, want), true
			s.e.Learn(a, Trials)
			*t = trial{}
			ended++
			continue
		}
		t.used, t.peak = want, max(t.peak, want)
		stay = append(stay, t)
	}
	s.devices[d] = stay
	return ended
}

func fixed(peak int64) func(float64) int64 { return func(float64) int64 { return peak } }

// bursty briefly uses much more memory in the middle of a trial.
func bursty(low, high int64) func(float64) int64 {
	return func(done float64) int64 {
		if done > 0.5 && done < 0.52 {
			return high
		}
		return low
	}
}

func growing(end int64) func(float64) int64 {
	return func(done float64) int64 { return gb + int64(done*float64(end-gb)) }
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	programs := []program{
		{"fixed, small", 60, 5, fixed(3 * gb)}, {"fixed, a third", 60, 10, fixed(11 * gb)},
		{"fixed, half", 100, 30, fixed(17 * gb)},
		{"fixed, large", 60, 30, fixed(30 * gb)}, {"fixed, busy", 60, 95, fixed(3 * gb)},
		{"fixed, half busy", 60, 55, fixed(3 * gb)},
		{"growing", 120, 10, growing(9 * gb)}, {"growing a lot", 120, 10, growing(19 * gb)},
		{"bursty", 100, 10, bursty(2*gb, 12*gb)},
		{"bursty, large", 100, 10, bursty(2*gb, 39*gb)}, {"short", 5, 10, fixed(3 * gb)}, {"none", 60, 0, fixed(0)},
	}
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			const trials, devices = 300, 2
			packed, alone := simulate(p, trials, devices, false, 1), simulate(p, trials, devices, true, 1)
			t.Logf("%d trials on a device, %d ended out of memory, %.2f times as fast as one alone; %s",
				packed.most, packed.oom, float64(alone.seconds)/float64(packed.seconds), packed.e)
			if float64(packed.seconds) > 1.05*float64(alone.seconds) {
				t.Errorf("took %d s, and %d s one after the other", packed.seconds, alone.seconds)
			}
			if packed.oom > trials/20 || packed.worst > 2 {
				t.Errorf("%d attempts ran out of memory, %d of one trial", packed.oom, packed.worst)
			}
			peak := int64(0)
			for i := range 1000 {
				peak = max(peak, p.needs(float64(i)/1000))
			}
			fit := MaxShared
			if peak > 0 {
				fit = int(min(simulated/roundUp(margin(peak), Step), MaxShared))
			}
			if p.busy > 0 {
				fit = min(fit, 1000/(8*p.busy))
			}
			if p.work < 10 || peak == 0 {
				fit = 1
			}
			if n, _, _ := packed.e.Fit(Step); n < fit || packed.most < fit {
				t.Errorf("%d trials share a device in the end, and %d fit", n, fit)
			}
		})
	}
}

// TestSimulationOfRandomPeaks checks that peaks that only some trials reach, and not the first
// ones, do not lead to an endless loop of failures.
func TestSimulationOfRandomPeaks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		low, high := rapid.Int64Range(gb, 20*gb).Draw(t, "low"), rapid.Int64Range(gb, 40*gb).Draw(t, "high")
		rare := rapid.IntRange(1, 60).Draw(t, "rare") // one sample in this many
		p := program{"random", rapid.IntRange(10, 100).Draw(t, "work"), rapid.IntRange(1, 100).Draw(t, "busy"),
			func(float64) int64 {
				if random.IntN(10*rare) == 0 {
					return max(low, high)
				}
				return low
			}}
		const trials = 300
		s, alone := simulate(p, trials, 2, false, 3), simulate(p, trials, 2, true, 3)
		switch {
		case s.worst > 2:
			t.Fatalf("a trial ran out of memory %d times", s.worst)
		case s.oom > trials/5:
			t.Fatalf("%d of %d trials ran out of memory: %s", s.oom, trials, s.e)
		case float64(s.seconds) > 1.05*float64(alone.seconds)+float64(2*p.work):
			t.Fatalf("took %d s, and %d s one after the other: %s", s.seconds, alone.seconds, s.e)
		}
	})
}
