package docker_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
)

// BenchmarkContainers runs /bin/true in containers, one and four at a time, without a network of
// their own and without any network.
func BenchmarkContainers(b *testing.B) {
	e := dockertest.New(b)
	for _, network := range []string{"host", "none"} {
		for _, slots := range []int{1, 4} {
			b.Run(fmt.Sprintf("network %s, %d at a time", network, slots), func(b *testing.B) {
				o := options(b, e)
				x := docker.New(o, slog.New(slog.DiscardHandler))
				defer x.Close()
				var left atomic.Int64
				left.Store(int64(b.N))
				var all sync.WaitGroup
				b.ResetTimer()
				for range slots {
					a := attempt(b, "")
					a.Argv, a.Container.Network = []string{"/bin/true"}, network
					all.Go(func() {
						for left.Add(-1) >= 0 {
							if out := run(b, x, a); out.Class != grid.ClassNone {
								b.Errorf("got %+v", out)
							}
						}
					})
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "containers/s")
			})
		}
	}
}

// BenchmarkContainerOutput copies 200 MiB out of a container.
func BenchmarkContainerOutput(b *testing.B) {
	e := dockertest.New(b)
	x := docker.New(options(b, e), slog.New(slog.DiscardHandler))
	defer x.Close()
	for b.Loop() {
		a := attempt(b, "dd if=/dev/zero bs=1048576 count=200 2>/dev/null")
		if out := run(b, x, a); out.Class != grid.ClassNone {
			b.Fatalf("got %+v", out)
		}
		text, _ := output(b, a)
		if bytes.Count([]byte(text), []byte{0}) != 200<<20 {
			b.Fatal("output is missing")
		}
	}
}
