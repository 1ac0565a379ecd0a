package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/executor/executortest"
)

// asked are the calls that read. # is another number each time, so that no answer is one that was
// kept, and WALK begins in the middle of a list and goes on behind the page before.
var asked = []string{
	"/node", "/openapi.json", "/sweeps", "/sweeps?state=finished&limit=200", "BIG", "BIG/failures",
	"BIG/trials", "BIG/trials?offset=9#000", "BIG/trials?sort=accuracy&desc=true&offset=#",
	"BIG/trials?sort=wall&offset=9#00", "BIG/trials?sort=cpu&desc=true&offset=#0000",
	"BIG/trials?sort=ended&offset=#0000", "BIG/trials?sort=accuracy&WALK", "BIG/trials?sort=memory&WALK",
	"BIG/trials?sort=attempts&WALK", "BIG/trials?sort=b&WALK", "BIG/trials?sort=f&offset=#0000&limit=500",
	"BIG/trials?state=failed&offset=#00", "BIG/trials?state=pending&state=failed&offset=#00",
	"BIG/trials?class=oom&offset=#", "BIG/trials?sort=state&desc=true&offset=#000",
	"BIG/trials/17/attempts", "BIG/trials/17/explain", "BIG/trials/17/log?tail=65536", "BIG/trials/17/log?offset=#0000",
	"BIG/trials/17/log/search?q=epoch+#9",
	"BIG/trials/17/log/search?q=not+there", "BIG/trials/17/files", "BIG/logs?index=18",
	"BIG/charts/marginals?d[f]=0..#", "BIG/charts/parallel?d[f]=0..#", "BIG/charts/heat?x=a&y=f&stat=median&d[f]=0..#",
	"BIG/charts/heat?x=d&y=f&d[d]=0..9&t=..#0",
	"BIG/charts/matrix?d[f]=0..#", "BIG/charts/slices?trial=#00", "BIG/charts/histogram?d[f]=0..#",
	"BIG/charts/history?d[f]=0..#", "BIG/charts/importance?d[f]=0..#",
	"BIG/charts/groups?over=f&d[f]=0..#", "BIG/charts/failures?d[f]=0..#", "BIG/charts/timeline?d[f]=0..#",
	"BIG/charts/coverage?d[f]=0..#",
	"BIG/charts/suggestions?d[f]=0..#", "BIG/charts/curves?d[f]=0..#", "BIG/charts/eta",
	"RUN", "RUN/trials?sort=ended&desc=true", "RUN/charts/marginals?value=wall",
	"RUN/charts/timeline", "RUN/charts/eta",
}

// BenchmarkEndpoints measures how long each call that reads takes while a node knows 10^6 trials of
// a sweep and runs another one at full rate: the 99th percentile must be below 100 ms, and an
// answer below 200 kB. No answer is asked for again, but pages of one list are, of which the node
// keeps the order: the first call of each kind is printed as well. Before that it measures all
// calls without the other sweep, for which the processor time is that of the call.
func BenchmarkEndpoints(b *testing.B) {
	const rounds, few = 100, 11
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	var axes []space.Axis
	for k, n := range []int{6, 8, 4, 10, 5, 104} {
		axes = append(axes, space.Axis{Key: string(rune('a' + k)),
			Interval: []json.Number{"0", json.Number(strconv.Itoa(n))}})
	}
	points, err := space.New(axes, nil)
	if err != nil {
		b.Fatal(err)
	}
	big := submission(b, 1, "/bin/true")
	big.Space, big.Task.Objective = points, &grid.Objective{Metric: "accuracy", Goal: "maximize"}
	random := rand.New(rand.NewPCG(1, 2))
	var first, last uint64
	text := bytes.Repeat([]byte("epoch 12 of 90: loss 0.4132 accuracy 0.91\n"), 400_000) // 17 MB
	endedTrials(b, dir, big, func(i int64) *grid.Result {
		r := &grid.Result{
			Usage: grid.Usage{Wall: int64(1e6 * math.Exp(random.NormFloat64())), CPU: 900, Memory: 1 << 20},
			Metrics: grid.Metric{"accuracy": strconv.AppendFloat(nil, random.ExpFloat64()+float64(i%7), 'g', 6, 64),
				"loss": json.RawMessage("0.5")},
		}
		switch {
		case i == 17:
			r.Log = grid.LogRef{First: first, Last: last, Bytes: int64(len(text))}
		case random.IntN(50) == 0:
			r.Class, r.ExitCode, r.Reason, r.Metrics = grid.ClassExit, 1,
				fmt.Sprintf("exit code 1\nKeyError: %d", i%9), nil
		case random.IntN(100) == 0:
			r.Class, r.ExitCode, r.Reason, r.Metrics = grid.ClassMemory, 137, "out of memory", nil
		}
		return r
	}, func(store *jetstream.Store) {
		chunk := jetstream.Chunk{Index: 17, Run: "bench.1.17", Stream: 1, Data: text}
		if first, last, err = store.Logs.Publish(b.Context(), "big-1", []jetstream.Chunk{chunk}); err != nil {
			b.Fatal(err)
		}
	})
	s, err := node.Attach(b.Context(), config.Config{
		StateDir: dir, Node: "bench", Machine: inventory.Machine{CPUs: slots, Memory: 1 << 34},
		Retention: config.DefaultRetention(), Executor: executortest.Instant{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}, true, func() {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	target, transport, err := s.Client().Target()
	if err != nil {
		b.Fatal(err)
	}
	client := &http.Client{Transport: transport}
	ask := func(path string) (time.Duration, []byte) {
		begin := time.Now()
		resp, err := client.Get(target.String() + api.Prefix + path)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("%s: got %d %.300s, %v", path, resp.StatusCode, answer, err)
		}
		return time.Since(begin), answer
	}
	walk := walks{}
	measure := func(calls []string, rounds int) (all []measured) {
		for _, call := range calls {
			l := measured{call: call}
			var took, used []time.Duration
			for n := range rounds {
				before := gridtest.CPUTime(b)
				d, answer := ask(walk.path(call, 1+n*100/rounds))
				took, used, l.bytes = append(took, d), append(used, gridtest.CPUTime(b)-before),
					max(l.bytes, len(answer))
				walk.follow(call, answer)
			}
			l.first = took[0]
			slices.Sort(took)
			slices.Sort(used)
			l.middle, l.p99, l.longest, l.cpu = took[rounds/2], took[(99*rounds+99)/100-1],
				took[rounds-1], used[rounds/2]
			all = append(all, l)
			fmt.Fprintf(os.Stderr, "%-70s %10.1f %10.1f %10.1f %10.1f %10.1f %10d\n", l.call, ms(l.cpu), ms(l.first),
				ms(l.middle), ms(l.p99), ms(l.longest), l.bytes)
		}
		return all
	}
	b.ResetTimer()
	for range b.N {
		var big, both []string
		for _, call := range asked {
			if call = strings.ReplaceAll(call, "BIG", "/sweeps/big-1"); !strings.Contains(call, "RUN") {
				big = append(big, call)
			}
		}
		fmt.Fprintf(os.Stderr, "\n%-70s %10s %10s %10s %10s %10s %10s\n", "call, alone", "cpu ms", "first ms",
			"median ms", "p99 ms", "longest ms", "bytes")
		measure(big, few)
		running, err := s.Client().Sweeps().Submit(b.Context(), submission(b, 1<<40, "/bin/true"))
		if err != nil {
			b.Fatal(err)
		}
		for _, call := range asked {
			both = append(both, strings.NewReplacer("BIG", "/sweeps/big-1",
				"RUN", "/sweeps/"+string(running.Sweep)).Replace(call))
		}
		fmt.Fprintf(os.Stderr, "\n%-70s %10s %10s %10s %10s %10s %10s\n", "call, beside a sweep at full rate",
			"all cpu ms", "first ms", "median ms", "p99 ms", "longest ms", "bytes")
		all := measure(both, rounds)
		slow, large, worst := 0, 0, time.Duration(0)
		for _, l := range all {
			if worst = max(worst, l.p99); l.p99 > 100*time.Millisecond {
				slow++
			}
			large = max(large, l.bytes)
		}
		b.ReportMetric(ms(worst), "worst-p99-ms")
		b.ReportMetric(float64(slow), "calls-over-100-ms")
		b.ReportMetric(float64(large), "largest-bytes")
		b.ReportMetric(0, "ns/op")
		if _, err := s.Client().Sweeps().Cancel(context.WithoutCancel(b.Context()), running.Sweep, false); err != nil {
			b.Fatal(err)
		}
	}
}

// walks are the cursors of the last pages of calls that walk through a list.
type walks map[string]string

func (w walks) path(call string, n int) string {
	place := "offset=500000"
	if at := w[call]; at != "" {
		place = "after=" + url.QueryEscape(at)
	}
	return strings.NewReplacer("#", strconv.Itoa(n), "WALK", place).Replace(call)
}

func (w walks) follow(call string, answer []byte) {
	var page struct{ Cursor string }
	if strings.Contains(call, "WALK") && json.Unmarshal(answer, &page) == nil {
		w[call] = page.Cursor
	}
}

// measured is what one call took.
type measured struct {
	call                             string
	cpu, first, middle, p99, longest time.Duration // cpu is that of the whole process meanwhile, in the middle
	bytes                            int
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
