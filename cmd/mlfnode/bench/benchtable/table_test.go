package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// passing is the output of go test -v, with lines of programs and loggers.
const passing = `goos: linux
goarch: amd64
pkg: mlfnode/cmd/mlfnode/bench
cpu: AMD EPYC
BenchmarkSpawn
BenchmarkSpawn/mlfnode
level=WARN msg="slow disk"
    bench_test.go:3: a log
        of two lines
BenchmarkSpawn/mlfnode-2         	       1	      1402 starts/s
BenchmarkSpawn/xargs-P2
BenchmarkSpawn/xargs-P2-2        	       1	       988.5 starts/s	         3.000 MB
BenchmarkSpawn/c
    bench_test.go:9: no C compiler
--- SKIP: BenchmarkSpawn/c
BenchmarkSubmit
no newlineBenchmarkSubmit-2               	       1	   3117432 ns/op	        12.50 kB-allocated
BenchmarkNodes
BenchmarkNodes/nodes-100
BenchmarkNodes/nodes-100  	       1	       170.0 ns/op
PASS
ok  	mlfnode/cmd/mlfnode/bench	31.5s
`

const passingTable = `pkg: mlfnode/cmd/mlfnode/bench
cpu: AMD EPYC
Spawn
  mlfnode                      1402 starts/s
  xargs-P2                    988.5 starts/s  3.000 MB
  c                           skipped
Submit                        3.117 ms/op  12.50 kB-allocated
Nodes
  nodes-100                   170 ns/op
`

const failing = `pkg: x
BenchmarkA
    x_test.go:1: of A
BenchmarkA-2 	       1	       170.0 ns/op
BenchmarkC
BenchmarkC/x
    x_test.go:5: oh
--- FAIL: BenchmarkC/x
BenchmarkC/y
BenchmarkC/y-2             	       1	       170.0 ns/op
--- FAIL: BenchmarkC
BenchmarkD
    x_test.go:1: of D
BenchmarkD-2               	       1	       110.0 ns/op	       0 B/op	       0 allocs/op
FAIL
exit status 1
FAIL	x	0.045s
`

const failingTable = `pkg: x
A                             170 ns/op
C
  x                           failed
  y                           170 ns/op
        x_test.go:5: oh
D                             110 ns/op  0 B/op  0 allocs/op
`

const panicking = `BenchmarkA
BenchmarkA-2 	       1	       170.0 ns/op
BenchmarkB
panic: oh
FAIL	x	0.045s
`

const panickingTable = `A                             170 ns/op
B
    panic: oh
    FAIL	x	0.045s
`

// TestTable formats the output of benchmarks that pass, fail or panic, and returns their failure.
func TestTable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		output, exit, want string
	}{
		"passing":   {passing, "0", passingTable},
		"failing":   {failing, "1", failingTable},
		"panicking": {panicking, "2", panickingTable},
		"not built": {"FAIL	x [build failed]\n", "1", "    FAIL	x [build failed]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "output")
			if err := os.WriteFile(file, []byte(tt.output), 0o600); err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			err := run(&got, false, []string{"sh", "-c", "cat " + file + "; exit " + tt.exit})
			if (err != nil) != (tt.exit != "0") {
				t.Errorf("got the error %v of a command with status %s", err, tt.exit)
			}
			if got.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), tt.want)
			}
		})
	}
}

// TestVerbose prints other lines as they come, and only once.
func TestVerbose(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	tab := table{w: &got, verbose: true}
	for line := range strings.Lines(failing) {
		tab.add(line)
	}
	tab.end(true)
	if text := got.String(); strings.Count(text, "of D") != 1 || strings.Count(text, "oh") != 1 {
		t.Errorf("got\n%s", text)
	}
}
