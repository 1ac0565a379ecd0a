package process_test

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"mlfnode/node/executor"
)

// inSlots spreads b.N runs over as many goroutines as there are cores and reports runs per second.
func inSlots(b *testing.B, slot func() (run func(), done func())) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	begin := make(chan struct{})
	for range runtime.NumCPU() {
		ready.Add(1)
		wg.Go(func() {
			run, done := slot()
			defer done()
			ready.Done()
			<-begin
			for left.Add(-1) >= 0 {
				run()
			}
		})
	}
	ready.Wait()
	b.ResetTimer()
	close(begin)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
}

func output(b *testing.B) *os.File {
	b.Helper()
	f, err := os.OpenFile(b.TempDir()+"/out", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

// BenchmarkBareLoop is the plain Go loop that Slot.Run is compared with: files opened beforehand,
// nothing watched.
func BenchmarkBareLoop(b *testing.B) {
	out, env, dir := output(b), os.Environ(), b.TempDir()
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	inSlots(b, func() (func(), func()) {
		return func() {
			pid, err := syscall.ForkExec("/bin/true", []string{"/bin/true"}, &syscall.ProcAttr{
				Dir: dir, Env: env, Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
			})
			if err != nil {
				b.Error(err)
				return
			}
			syscall.Wait4(pid, nil, 0, nil)
		}, func() {}
	})
}

func BenchmarkSlotRun(b *testing.B) {
	for _, choice := range choices {
		b.Run(string(choice), func(b *testing.B) {
			p, out, env, dir := newProcess(b, choice), output(b), os.Environ(), b.TempDir()
			inSlots(b, func() (func(), func()) {
				s, err := p.Slot()
				if err != nil {
					b.Error(err)
					return func() {}, func() {}
				}
				run := func() {
					o := s.Run(b.Context(), &executor.Attempt{Argv: []string{"/bin/true"}, Env: env,
						Spec: executor.Spec{Dir: dir}, Stdout: out, Stderr: out})
					if o.Class != "" {
						b.Errorf("got %q: %s", o.Class, o.Reason)
					}
				}
				return run, func() { s.Close() }
			})
		})
	}
}
