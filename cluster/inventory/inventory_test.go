package inventory

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRead(t *testing.T) {
	m, err := Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.CPUs <= 0 || m.CPUs > float64(runtime.NumCPU()) || m.Memory < 1<<20 || m.Hostname == "" || m.Kernel == "" ||
		m.OS == "" || m.Arch != runtime.GOARCH {
		t.Errorf("got %+v", m)
	}
	t.Logf("%+v", m)
}

// plant writes files of a simulated system.
func plant(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestContainerLimits(t *testing.T) {
	const v1 = "5:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n0::/\n"
	tests := map[string]struct {
		files map[string]string
		want  limits
	}{
		"no cgroups": {nil, limits{}},
		"version 2, no limit": {map[string]string{"proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/cpu.max": "max 100000\n", "sys/fs/cgroup/a/memory.max": "max\n"}, limits{}},
		"version 2, the tightest of the groups above": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
			"sys/fs/cgroup/a/memory.max": "1000\n",
			"sys/fs/cgroup/a/b/cpu.max":  "400000 100000\n", "sys/fs/cgroup/a/b/memory.max": "2000\n",
		}, limits{1.5, 1000}},
		"version 2, its own group is the top": {map[string]string{
			"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
			"sys/fs/cgroup/memory.max": "5000\n",
		}, limits{0.5, 5000}},
		"version 1": {map[string]string{
			"proc/self/cgroup": v1, "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_quota_us": "200000\n",
			"sys/fs/cgroup/cpu/docker/ab/cpu.cfs_period_us":        "100000\n",
			"sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes": "3000\n",
		}, limits{2, 3000}},
		"version 1 in a container": {map[string]string{
			"proc/self/cgroup": v1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us":        "100000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, limits{0, 9223372036854771712}},
		"not numbers": {map[string]string{"proc/self/cgroup": "0::/\nx\n", "sys/fs/cgroup/cpu.max": "many 0\n",
			"sys/fs/cgroup/memory.max": "-5\n"}, limits{}},
	}
	for name, tt := range tests {
		if got := containerLimits(plant(t, tt.files)); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
	m := Machine{CPUs: 4, Memory: 100}
	limits{cpus: 1.5, memory: 1000}.apply(&m)
	if m.CPUs != 1.5 || m.Memory != 100 {
		t.Errorf("got %+v, want the tighter of machine and container", m)
	}
}

func TestDistribution(t *testing.T) {
	root := plant(t,
		map[string]string{"good": "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", "bad": "NAME=x\n"})
	for name, want := range map[string]string{"good": "Debian GNU/Linux 12 (bookworm)", "bad": runtime.GOOS,
		"missing": runtime.GOOS} {
		if got := distribution(filepath.Join(root, name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestMemoryErrors(t *testing.T) {
	root := plant(t, map[string]string{"none": "MemFree: 1 kB\n", "odd": "MemTotal: many kB\n"})
	for _, name := range []string{"none", "odd", "missing"} {
		if n, err := totalMemory(filepath.Join(root, name)); err == nil {
			t.Errorf("%s: got %d", name, n)
		}
	}
}

func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks, told atomic.Int32
		w := NewWatcher(Machine{CPUs: 1}, nil, func(Machine) { told.Add(1) })
		w.read = func(context.Context, Source) (Machine, error) {
			if n := looks.Add(1); n%2 == 0 {
				return Machine{}, os.ErrNotExist
			}
			return Machine{CPUs: 1 + float64(looks.Load())}, nil
		}
		if got := w.Latest().CPUs; got != 1 {
			t.Errorf("at first: got %v CPUs, want 1", got)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(4*refresh + time.Second) // the fake clock of the bubble
		if looks.Load() != 5 || told.Load() != 3 || w.Latest().CPUs != 6 {
			t.Errorf("got %d looks, %d calls and %v CPUs, want 5, 3 and those of the fifth", looks.Load(), told.Load(),
				w.Latest().CPUs)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
