package browser

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// pageTime is how long BenchmarkPageHeap keeps pages open: $PAGE_TIME, as in 1h.
func pageTime(b *testing.B) time.Duration {
	text := os.Getenv("PAGE_TIME")
	if text == "" {
		return 2 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// heap gives the bytes of a page's objects that are in use.
func (b *tab) heap() float64 {
	b.t.Helper()
	for range 2 { // what a finalizer frees goes with the second one
		if _, err := chromedp.Call(b.ctx, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
			b.t.Fatal(err)
		}
	}
	use, err := chromedp.Call(b.ctx, runtime.GetHeapUsage, cdp.Empty{})
	if err != nil {
		b.t.Fatal(err)
	}
	return use.UsedSize + use.BackingStorageSize
}

// BenchmarkPageHeap keeps pages open while a sweep is in progress, each in a browser of its own,
// and measures how the heap of each grows after the first tenth of the time: after an hour it must
// be less than 10 MB.
func BenchmarkPageHeap(b *testing.B) {
	total := pageTime(b)
	c := newCluster(b)
	id := c.sweep(`echo "trial $1"; sleep 0.2; echo "{\"accuracy\": 0.$MLF_ATTEMPT$(date +%N)}" >>$MLF_METRICS`,
		"x=0:1000000", "y=1,2,3")
	m := c.monitor()
	grown := map[string]float64{}
	b.ResetTimer()
	for range b.N {
		var mu sync.Mutex
		var pages sync.WaitGroup
		for name, path := range map[string]string{"overview": "/", "sweep": "/sweeps/" + id,
			"logs": "/sweeps/" + id + "/logs"} {
			page := newBrowser(b)
			page.login(m)
			page.open(path)
			page.see(".line.live")
			pages.Go(func() {
				begin := time.Now()
				tick := time.NewTicker(total / 20)
				defer tick.Stop()
				var heaps []float64
				for time.Since(begin) < total || len(heaps) < 10 {
					<-tick.C
					heaps = append(heaps, page.heap()/1e6)
				}
				// The least of some looks leaves out what is only on its way.
				first, last := slices.Min(heaps[1:5]), slices.Min(heaps[len(heaps)-4:])
				mu.Lock()
				defer mu.Unlock()
				grown[name] = last - first
				b.Logf("%s: MB in use: %.1f", name, heaps)
			})
		}
		pages.Wait()
	}
	for name, mb := range grown {
		b.ReportMetric(mb, name+"-MB-grown")
	}
	b.ReportMetric(total.Minutes(), "minutes")
	b.ReportMetric(0, "ns/op")
}
