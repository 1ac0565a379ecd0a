// Package bench measures mlfnode beside bare loops that do nothing but start processes, in one run
// on one machine:
//
//	make bench
//
// Absolute figures depend on the machine and its noise; the ratios are what counts.
package bench

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/executor/executortest"
)

const (
	spawns = 8000      // processes of one spawn rate
	points = 1_000_000 // trials of the no-exec rate
	slots  = 2
)

// open makes a node of its own in this process.
func open(b *testing.B, instant bool) *node.Session {
	cfg := config.Config{
		StateDir: b.TempDir(), Node: "bench", Machine: inventory.Machine{CPUs: slots, Memory: 1 << 34},
		Retention: config.DefaultRetention(),
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if instant {
		cfg.Executor = executortest.Instant{}
	}
	s, err := node.Attach(b.Context(), cfg, true, func() {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// submission is a sweep of a command over n points.
func submission(b *testing.B, n int64, command ...string) api.Submit {
	axis, err := space.ParseSet(fmt.Sprintf("i=0:%d", n))
	if err != nil {
		b.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		b.Fatal(err)
	}
	task := grid.Task{Name: "bench", Command: command, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries()}
	return api.Submit{Project: "bench", Task: task, Space: points, Environ: []string{"PATH=/usr/bin:/bin"}}
}

// sweep runs a sweep to its end and returns how long it took.
func sweep(b *testing.B, c *api.Client, sub api.Submit) time.Duration {
	begin := time.Now()
	s, err := c.Sweeps().Submit(b.Context(), sub)
	if err != nil {
		b.Fatal(err)
	}
	var last *api.Sweep
	for u, err := range c.Sweeps().Watch(b.Context(), s.Sweep, 0) {
		if err != nil {
			b.Fatal(err)
		}
		if u.Sweep != nil {
			last = u.Sweep
		}
	}
	if last.Succeeded != sub.Space.Count() {
		b.Fatalf("succeeded: got %d, want %d", last.Succeeded, sub.Space.Count())
	}
	return time.Since(begin)
}

func rate(b *testing.B, n int64, took time.Duration) {
	b.ReportMetric(float64(n)/took.Seconds(), "starts/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSpawn compares the rate of /bin/true through mlfnode, durable and with its results
// recorded, with bare loops.
func BenchmarkSpawn(b *testing.B) {
	b.Run("mlfnode", func(b *testing.B) {
		s := open(b, false)
		sweep(b, s.Client(), submission(b, 200, "/bin/true")) // warm
		for b.Loop() {
			rate(b, spawns, sweep(b, s.Client(), submission(b, spawns, "/bin/true")))
		}
	})
	b.Run("bare-go", func(b *testing.B) {
		for b.Loop() {
			rate(b, spawns, bareGo(b))
		}
	})
	b.Run("c-posix_spawn", func(b *testing.B) {
		loop := compile(b)
		for b.Loop() {
			rate(b, spawns, timed(b, loop, strconv.Itoa(spawns), strconv.Itoa(slots)))
		}
	})
	b.Run("xargs-P2", func(b *testing.B) {
		for b.Loop() {
			rate(b, spawns, timed(b, "sh", "-c", fmt.Sprintf("seq %d | xargs -P%d -n1 /bin/true", spawns, slots)))
		}
	})
}

// bareGo starts /bin/true in a loop, as fast as os.StartProcess goes, in as many goroutines as
// there are slots.
func bareGo(b *testing.B) time.Duration {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	begin := time.Now()
	var wg sync.WaitGroup
	for range slots {
		wg.Go(func() {
			for range spawns / slots {
				p, err := os.StartProcess("/bin/true", []string{"/bin/true"},
					&os.ProcAttr{Files: []*os.File{null, null, null}})
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := p.Wait(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// spawnLoop is the bare loop in C: argv[2] processes at one time, argv[1] in all.
const spawnLoop = `#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
	int n = atoi(argv[1]) / atoi(argv[2]);
	char *args[] = {"/bin/true", 0}, *env[] = {0};
	for (int s = atoi(argv[2]); s > 0; s--) {
		if (fork() != 0) continue;
		for (int i = 0; i < n; i++) {
			pid_t pid; int status;
			if (posix_spawn(&pid, args[0], 0, 0, args, env) != 0) return 1;
			waitpid(pid, &status, 0);
		}
		return 0;
	}
	while (wait(0) > 0) {}
	return 0;
}
`

func compile(b *testing.B) string {
	dir := b.TempDir()
	source, program := filepath.Join(dir, "loop.c"), filepath.Join(dir, "loop")
	if err := os.WriteFile(source, []byte(spawnLoop), 0o600); err != nil {
		b.Fatal(err)
	}
	if out, err := exec.Command("cc", "-O2", "-o", program, source).CombinedOutput(); err != nil {
		b.Skipf("no C compiler: %v %s", err, out)
	}
	return program
}

func timed(b *testing.B, name string, args ...string) time.Duration {
	begin := time.Now()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v %s", name, err, out)
	}
	return time.Since(begin)
}

// BenchmarkNoExec is the rate of a million trials with an executor that returns immediately:
// everything but the processes.
func BenchmarkNoExec(b *testing.B) {
	s := open(b, true)
	b.Run("rate", func(b *testing.B) {
		for b.Loop() {
			before := resident(b)
			took := sweep(b, s.Client(), submission(b, points, "/bin/true"))
			b.ReportMetric(points/took.Seconds(), "trials/s")
			b.ReportMetric(float64(resident(b)-before)/points, "resident-B/trial")
			b.ReportMetric(0, "ns/op")
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			begin := time.Now()
			n := 0
			for _, err := range s.Client().Trials().List(b.Context(), api.Last,
				api.TrialQuery{Sort: "wall", Desc: true, Limit: 50}) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != 50 {
				b.Fatalf("rows: got %d, want 50", n)
			}
			b.ReportMetric(time.Since(begin).Seconds()*1000, "ms-sorted-by-wall")
			begin = time.Now()
			for _, err := range s.Client().Trials().List(b.Context(), api.Last,
				api.TrialQuery{Limit: 50, Offset: points / 2}) {
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(time.Since(begin).Seconds()*1000, "ms-by-index")
			b.ReportMetric(0, "ns/op")
		}
	})
}

// BenchmarkSubmit is the time and memory to submit a space of 10^9 points; nothing of it may run.
func BenchmarkSubmit(b *testing.B) {
	s := open(b, true)
	sub := submission(b, 1_000_000_000, "/bin/true")
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.ReadMemStats(&before)
		begin := time.Now()
		sw, err := s.Client().Sweeps().Submit(b.Context(), sub)
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Client().Sweeps().Cancel(b.Context(), sw.Sweep, false); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(took.Seconds()*1000, "ms")
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/1024, "kB-allocated")
	}
}

// BenchmarkFirstStart is the time from submit to the start of the first program on a running node.
func BenchmarkFirstStart(b *testing.B) {
	s := open(b, false)
	for b.Loop() {
		mark := filepath.Join(b.TempDir(), "started")
		sub := submission(b, 1, "/bin/sh", "-c", "date +%s%N >"+mark)
		begin := time.Now()
		sweep(b, s.Client(), sub)
		text, err := os.ReadFile(mark)
		if err != nil {
			b.Fatal(err)
		}
		nanos, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(nanos-begin.UnixNano())/1e6, "ms")
	}
}

// BenchmarkIdle is what the real program takes while its only trial sleeps.
func BenchmarkIdle(b *testing.B) {
	program := filepath.Join(b.TempDir(), "mlfnode")
	if out, err := exec.Command("go", "build", "-o", program, "mlfnode/cmd/mlfnode").CombinedOutput(); err != nil {
		b.Fatalf("build: %v %s", err, out)
	}
	for b.Loop() {
		ctx, stop := context.WithCancel(b.Context())
		cmd := exec.CommandContext(ctx, program, "--state-dir", b.TempDir(), "sweep", "-q", "--", "sleep", "60")
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		timer := time.NewTimer(5 * time.Second)
		<-timer.C
		used := cpuTime(b, cmd.Process.Pid)
		timer.Reset(10 * time.Second)
		<-timer.C
		b.ReportMetric((cpuTime(b, cmd.Process.Pid)-used).Seconds()*10, "%cpu")
		b.ReportMetric(float64(residentOf(b, cmd.Process.Pid))/(1<<20), "resident-MB")
		stop()
		_ = cmd.Wait()
	}
}

func resident(b *testing.B) int64 { return residentOf(b, os.Getpid()) }

// residentOf reads VmRSS, proc_pid_status(5).
func residentOf(b *testing.B, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// cpuTime reads user and system time, fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
func cpuTime(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond
}
