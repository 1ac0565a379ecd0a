package inventory

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestGroupsOf(t *testing.T) {
	instance := func(profile, state string) Instance {
		return Instance{Profile: profile, Memory: 5 << 30, State: state}
	}
	got := GroupsOf([]GPU{
		{Name: "A", Memory: 40 << 30, Capability: "8.0"},
		{Name: "T", Memory: 16 << 30, State: "sick"},
		{Name: "A", Memory: 40 << 30, Capability: "8.0", Problem: "lost"},
		{Name: "A", Memory: 40 << 30, Capability: "8.0", MIG: true,
			Instances: []Instance{instance("1g.5gb", "ready"), instance("1g.5gb", "foreign")}},
		{Name: "A", Memory: 40 << 30, Capability: "8.0", MIG: true},
	})
	want := []Group{
		{Model: "A", Memory: 40 << 30, Capability: "8.0", Total: 2, Ready: 1},
		{Model: "T", Memory: 16 << 30, Total: 1},
		{Model: "A", Memory: 5 << 30, Capability: "8.0", Profile: "1g.5gb", Total: 2, Ready: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNUMANode(t *testing.T) {
	root := plant(t, map[string]string{
		"sys/bus/pci/devices/0000:07:00.0/numa_node": "1\n", "sys/bus/pci/devices/0001:0f:00.0/numa_node": "-1\n",
	})
	for bus, want := range map[string]int{
		"00000000:07:00.0": 1, "0000:07:00.0": 1, "00000001:0F:00.0": Unknown, "00000000:08:00.0": Unknown, "": Unknown,
		"x:/../..": Unknown,
	} {
		if got := numaNode(root, bus); got != want {
			t.Errorf("%q: got %d, want %d", bus, got, want)
		}
	}
}

// sampler is a Source whose Sample method is a func.
type sampler func(context.Context) (Sample, error)

func (sampler) Read(context.Context, *Machine)               {}
func (f sampler) Sample(ctx context.Context) (Sample, error) { return f(ctx) }
func (sampler) Close()                                       {}

// TestWatcherSamples samples a driver that answers, one that has a problem, and one that hangs
// forever.
func TestWatcherSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang, release := false, make(chan struct{})
		problem := errors.New("a problem")
		w := NewWatcher(Machine{}, sampler(func(context.Context) (Sample, error) {
			if hang {
				<-release
			}
			return Sample{Uses: []Use{{UUID: "GPU-1"}}}, problem
		}), nil)
		short := func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) }
		ctx, stop := short()
		if _, err := w.Sample(ctx); !errors.Is(err, ErrSilent) {
			t.Errorf("before the start: got %v", err)
		}
		stop()
		running, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(running) }()
		if s, err := w.Sample(t.Context()); !errors.Is(err, problem) || len(s.Uses) != 1 {
			t.Errorf("got %+v, %v", s, err)
		}
		hang = true
		for range 2 {
			ctx, stop := short()
			if _, err := w.Sample(ctx); !errors.Is(err, ErrSilent) {
				t.Errorf("hanging: got %v", err)
			}
			stop()
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
	})
}
