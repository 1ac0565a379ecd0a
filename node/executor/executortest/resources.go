package executortest

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node/executor"
)

const mebibyte = 1 << 20

func cpuUsage(t *testing.T, e executor.Executor) {
	gridtest.Program(t, "python3") // its use of memory and time is precise
	s := newHarness(t, e)
	burn := "import time\nwhile time.process_time() < 0.3: pass"
	if s.kit.Contained { // use is read now and then, and not at the end
		burn += "\ntime.sleep(0.3)"
	}
	o := s.run(t.Context(), s.attempt("python3", "-c", burn))
	s.expect(o, grid.ClassNone, 0, "")
	if o.Usage.CPU < 290_000 || o.Usage.CPU > 3_000_000 || o.Usage.Wall < o.Usage.CPU/8 {
		t.Errorf("usage: got cpu %d µs, wall %d µs; want about 300000 of cpu", o.Usage.CPU, o.Usage.Wall)
	}
	o = s.run(t.Context(), s.attempt("/bin/sh", "-c", `python3 -c "$0"; python3 -c "$0"`, burn))
	s.expect(o, grid.ClassNone, 0, "")
	if o.Usage.CPU < 580_000 {
		t.Errorf("usage of the tree: got cpu %d µs, want at least 580000", o.Usage.CPU)
	}
}

func memoryUsage(t *testing.T, e executor.Executor) {
	gridtest.Program(t, "python3") // its use of memory and time is precise
	s := newHarness(t, e)
	for _, size := range []int64{200, 60} {
		o := s.run(t.Context(), s.attempt("python3", "-c",
			"import sys, time; x = b'x' * (int(sys.argv[1]) << 20); time.sleep(0.4)", strconv.FormatInt(size, 10)))
		s.expect(o, grid.ClassNone, 0, "")
		if got := o.Usage.Memory; got < size*mebibyte || got > (size+80)*mebibyte {
			t.Errorf("usage: got peak memory %d MiB, want about %d", got/mebibyte, size)
		}
	}
}

func needLimits(t *testing.T, e executor.Executor) {
	t.Helper()
	if l, ok := e.(Limiter); ok && !l.Limits() {
		t.Skip("memory limits are not enforced on this machine")
	}
	gridtest.Program(t, "python3") // its use of memory and time is precise
}

func memoryLimit(t *testing.T, e executor.Executor) {
	needLimits(t, e)
	s := newHarness(t, e)
	for _, argv := range [][]string{
		{"python3", "-c", "x = b'x' * (300 << 20)"},
		{"/bin/sh", "-c", `python3 -c "x = b'x' * (300 << 20)"; exit $?`},
	} {
		a := s.attempt(argv...)
		a.Memory = 64 * mebibyte
		o := s.run(t.Context(), a)
		s.expect(o, grid.ClassMemory, 128+9, "ran out of memory: its limit is 64 MiB and it used ")
	}
	a := s.attempt("/bin/sh", "-c", "kill -9 $$")
	a.Memory = 64 * mebibyte
	s.expect(s.run(t.Context(), a), grid.ClassSignal, 128+9, "killed by SIGKILL")
}

func memoryLifted(t *testing.T, e executor.Executor) {
	needLimits(t, e)
	s := newHarness(t, e)
	for _, limit := range []int64{64, 0, 64, 400, 0} {
		a := s.attempt("python3", "-c", "x = b'x' * (150 << 20)")
		a.Memory = limit * mebibyte
		if o := s.run(t.Context(), a); (o.Class == grid.ClassMemory) != (limit == 64) {
			t.Errorf("limit %d MiB: got class %q, reason %q", limit, o.Class, o.Reason)
		}
	}
}

// noLeaks runs many attempts at the same time and counts what is left.
func noLeaks(t *testing.T, e executor.Executor) {
	slots, attempts := 8, 25
	if s := e.(*withKit); s.kit.Contained { // each takes a hundred times as long
		attempts = 5
	}
	run := func(name string, attempts int) {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			defer wg.Wait()
			for range slots {
				s := newHarness(t, e)
				wg.Go(func() { s.many(attempts) })
			}
		})
	}
	run("first attempts", 1) // connections that an executor keeps are not leaks
	routines, files := runtime.NumGoroutine(), openCount(t)
	run("attempts", attempts)
	s := &harness{T: t}
	s.until("goroutines to end", func() bool { return runtime.NumGoroutine() <= routines })
	s.until("files to be closed", func() bool { return openCount(t) <= files })
}

// many runs attempts of every kind on one slot.
func (s *harness) many(n int) {
	for i := range n {
		switch i % 5 {
		case 0:
			s.expect(s.run(s.Context(), s.script("sleep 1000 & exit 5")), grid.ClassExit, 5, "")
		case 1:
			s.expect(s.run(s.Context(), s.attempt("./none")), grid.ClassStart, 127, "")
		case 2:
			a := s.script("sleep 1000")
			a.Timeout = 1
			s.expect(s.run(s.Context(), a), grid.ClassTimeout, 128+15, "")
		default:
			s.expect(s.run(s.Context(), s.attempt("/bin/true")), grid.ClassNone, 0, "")
		}
	}
}

func openCount(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatalf("count open files: %v", err)
	}
	return len(files)
}
