package shim

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
)

// BenchmarkSlotRun runs /bin/true in this process and through a shim, in as many slots as there are
// cores.
func BenchmarkSlotRun(b *testing.B) {
	for _, choice := range choices {
		b.Run(string(choice)+"/process", func(b *testing.B) {
			p, err := process.New(process.Options{Token: token(b), DieWithAgent: true, Cgroups: choice}, logTo(b))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { p.Close() })
			inSlots(b, p)
		})
		b.Run(string(choice)+"/shim", func(b *testing.B) {
			o := options(b)
			o.Cgroups = choice
			c := started(b, o)
			inSlots(b, c)
			b.ReportMetric(float64(resident(b, c.current.shim.PID)), "KiB-shim")
		})
	}
}

// inSlots spreads b.N runs over as many goroutines as there are cores and reports runs per second.
func inSlots(b *testing.B, e executor.Executor) {
	b.Helper()
	out, err := os.OpenFile(b.TempDir()+"/out", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	var left atomic.Int64
	left.Store(int64(b.N))
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	env, dir := os.Environ(), b.TempDir()
	var running, ready sync.WaitGroup
	begin := make(chan struct{})
	for range runtime.NumCPU() {
		ready.Add(1)
		running.Go(func() {
			s, err := e.Slot()
			ready.Done()
			if err != nil {
				b.Error(err)
				return
			}
			defer s.Close()
			<-begin
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				o := s.Run(ctx, &executor.Attempt{Argv: []string{"/bin/true"}, Env: env,
					Spec: executor.Spec{Dir: dir, Name: fmt.Sprint(n)}, Stdout: out, Stderr: out})
				if o.Class != "" {
					b.Errorf("got %q: %s", o.Class, o.Reason)
				}
			}
		})
	}
	ready.Wait()
	b.ResetTimer()
	close(begin)
	running.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
}

// resident returns the resident memory of a process in KiB.
func resident(t testing.TB, pid int) (kib int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	_, _ = fmt.Sscan(rest, &kib)
	return kib
}
