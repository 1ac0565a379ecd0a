package executortest

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

func largeOutput(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	const size = 100 << 20
	a := s.script("head -c 104857600 /dev/zero >&2 & head -c 104857600 /dev/zero; wait")
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	for _, name := range []string{"stdout", "stderr"} {
		st, err := os.Stat(s.path(name))
		if err != nil || st.Size() != size {
			t.Errorf("%s: got %v, %v; want %d bytes", name, st, err, size)
		}
	}
}

func binaryOutput(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.expect(s.run(t.Context(), s.script(`printf '\000\001\377\200\033[31m\r\n\302'`)), grid.ClassNone, 0, "")
	if got, want := s.read("stdout"), "\x00\x01\xff\x80\x1b[31m\r\n\xc2"; got != want {
		t.Errorf("stdout: got %q, want %q", got, want)
	}
}

// appending checks that the previous content of the files stays, also if both streams go to one
// file.
func appending(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script("echo out; echo err >&2")
	a.Stderr = a.Stdout
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	if got, want := s.read("stdout"), "out\nerr\nout\nerr\n"; got != want {
		t.Errorf("stdout: got %q, want %q", got, want)
	}
}

func environment(t *testing.T, e executor.Executor) {
	t.Setenv("MLF_OF_THE_AGENT", "1")
	s := newHarness(t, e)
	a := s.attempt("env")
	a.Env = append(a.Env, "A=1 2", "EMPTY=", "MLF_TOKEN=of-an-outer-node", "MLF_RUN=of-an-outer-node")
	before := slices.Clone(a.Env)
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	lines := strings.Split(strings.TrimSpace(s.read("stdout")), "\n")
	for _, want := range []string{"A=1 2", "EMPTY=", "HOME=" + s.dir} {
		if !slices.Contains(lines, want) {
			t.Errorf("environment: got %q, want %q in it", lines, want)
		}
	}
	for _, line := range lines {
		if strings.Contains(line, "AGENT") || strings.Contains(line, "outer") {
			t.Errorf("environment holds %q", line)
		}
	}
	if !slices.Equal(before, a.Env) {
		t.Errorf("the attempt's environment was changed: got %q, want %q", a.Env, before)
	}
	s.expect(s.run(t.Context(), s.attempt("/bin/sh", "-c", `test "$(pwd)" = "$HOME"`)), grid.ClassNone, 0, "")
}

// environmentTwice checks that of several entries with one name only the last is passed on:
// getenv(3) and interpreters take the first, shells the last, and programs are looked up in the
// PATH that they get.
func environmentTwice(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.write("system/raw", "#!/bin/sh\necho the first PATH\n", 0o755)
	s.write("own/raw", "#!/bin/sh\nexec cat /proc/self/environ\n", 0o755)
	a := s.attempt("raw")
	a.Env = []string{
		"PATH=" + s.path("system") + ":/usr/bin:/bin",
		"THREADS=8", "ONCE=1", "EMPTY=x", "THREADS=4", "MULTI=a\nTHREADS=9", "MLF_RUN=outer", "A==",
		"PATH=" + s.path("own") + ":/usr/bin:/bin",
		"EMPTY=", "THREADS=1", "MLF_TOKEN=outer", "MLF_TOKEN=outer", "A=b=c",
	}
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	entries := strings.Split(strings.TrimSuffix(s.read("stdout"), "\x00"), "\x00")
	count := map[string]int{}
	for _, kv := range entries {
		name, _, _ := strings.Cut(kv, "=")
		count[name]++
	}
	for name, n := range count {
		if n != 1 {
			t.Errorf("variable %s: got %d entries, want one", name, n)
		}
	}
	for _, want := range []string{"PATH=" + s.path("own") + ":/usr/bin:/bin",
		"THREADS=1", "ONCE=1", "EMPTY=", "MULTI=a\nTHREADS=9", "A=b=c"} {
		if !slices.Contains(entries, want) {
			t.Errorf("environment: got %q, want %q in it", entries, want)
		}
	}
	if slices.Contains(entries, "MLF_TOKEN=outer") || slices.Contains(entries, "MLF_RUN=outer") ||
		count["MLF_RUN"] == 0 {
		t.Errorf("environment: got %q, want the executor's own marks", entries)
	}
}

// openFiles checks that a program gets its three streams and nothing else, and that its input is
// empty.
func openFiles(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.expect(s.run(t.Context(), s.attempt("/bin/sh", "-c", "ls /proc/self/fd; cat")), grid.ClassNone, 0, "")
	if got, want := s.read("stdout"), "0\n1\n2\n3\n"; got != want { // 3 is ls reading the folder
		t.Errorf("open files: got %q, want %q", got, want)
	}
	a := s.attempt("/bin/sh", "-c", "echo lost")
	a.Stdout, a.Stderr = nil, nil
	if o := s.run(context.Background(), a); o.Class == grid.ClassSignal || o.Class == grid.ClassStart {
		t.Errorf("a program without output files: got class %q, reason %q", o.Class, o.Reason)
	}
}

func dispositions(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.expect(s.run(t.Context(), s.attempt("grep", "-E", "^Sig(Blk|Ign)|^ShdPnd", "/proc/self/status")),
		grid.ClassNone, 0, "")
	for line := range strings.Lines(s.read("stdout")) {
		_, mask, _ := strings.Cut(strings.TrimSpace(line), "\t")
		bits, err := strconv.ParseUint(mask, 16, 64)
		// Signals 32 and 33 belong to the C library, and Go passes them on as it got them: a
		// shell's timeout ignores one.
		if err != nil || bits&^(1<<31|1<<32) != 0 {
			t.Errorf("signals: got %q, want none blocked or ignored", line)
		}
	}
}

func started(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	calls, pid := 0, 0
	a := s.script("exit 0")
	a.Started = func(b executor.Program) { calls, pid = calls+1, b.PID }
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
	if calls != 1 || pid <= 0 && !s.kit.Contained { // there, one that has ended has no number any more
		t.Errorf("started: got %d calls, process id %d; want one call with an id", calls, pid)
	}
	if s.kit.Contained {
		return // its wrapper has started
	}
	a = s.attempt("./none")
	a.Started = func(executor.Program) { calls++ }
	s.run(t.Context(), a)
	if calls != 1 {
		t.Error("started was called for a program that does not exist")
	}
}
