package history

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"mlfnode/grid"
)

// benchTrials is the number of trials in the sweep, and benchBatch the number of trials in a batch.
const (
	benchTrials = 1_000_000
	benchBatch  = 500
)

// benchStream returns batches that end the trials from index on, with figures typical of a small
// training.
func benchStream(r *rand.Rand, index int64) []Stored {
	var part []Stored
	for range 4 {
		b := &grid.Batch{Sweep: "s-1", Node: grid.NodeID("node-" + strconv.Itoa(r.IntN(8)))}
		for range benchBatch {
			wall := int64(r.ExpFloat64() * 1e6)
			e := grid.Event{Kind: grid.Finished, Index: index, Attempt: 1, Run: fmt.Sprintf("%s.3.%d", b.Node, index),
				Time: 2e15 + index*100 + wall}
			e.Result = &grid.Result{
				Started: e.Time - wall, Usage: grid.Usage{Wall: wall, CPU: wall * 9 / 10, Memory: 1e7 + r.Int64N(1e6)},
				Metrics: grid.Metric{"accuracy": float(r.Float64()), "loss": float(r.ExpFloat64())},
				Log:     grid.LogRef{First: uint64(index), Last: uint64(index) + 1, Bytes: 100},
			}
			if r.IntN(100) == 0 {
				e.Result.Class, e.Result.ExitCode, e.Result.Reason, e.Result.Metrics = grid.ClassExit,
					1, "exit code 1", nil
			}
			b.Events = append(b.Events, e)
			index++
		}
		part = append(part, Stored{Seq: uint64(index / benchBatch), Batch: b})
	}
	return part
}

func float(f float64) json.RawMessage { return strconv.AppendFloat(nil, f, 'g', 6, 64) }

// foldBench folds the whole sweep; only the folding itself is timed.
func foldBench(b *testing.B, d *DB) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for index := int64(0); index < benchTrials; index += 4 * benchBatch {
		b.StopTimer()
		part := benchStream(r, index)
		b.StartTimer()
		if _, err := d.Fold(b.Context(), part, objectivePolicy); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFold folds a sweep of a million trials.
func BenchmarkFold(b *testing.B) {
	for range b.N {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "history.db")
		d := openAt(b, path)
		foldBench(b, d)
		mustClose(b, d)
		if info, err := os.Stat(path); err == nil {
			b.ReportMetric(float64(info.Size())/benchTrials, "bytes/row")
		}
	}
	b.ReportMetric(float64(b.N)*benchTrials/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkFoldOne folds trials one at a time, as they arrive from a sweep of long trials.
func BenchmarkFoldOne(b *testing.B) {
	d := openAt(b, filepath.Join(b.TempDir(), "history.db"))
	defer mustClose(b, d)
	index := int64(0)
	for b.Loop() {
		foldEvents(b, d, "s-1", finished(index, `{"accuracy": 0.5, "loss": 2.5}`))
		index++
	}
}

// BenchmarkList times the listings of such a sweep.
func BenchmarkList(b *testing.B) {
	d := openAt(b, filepath.Join(b.TempDir(), "history.db"))
	defer mustClose(b, d)
	foldBench(b, d)
	for _, c := range []struct {
		name string
		q    Query
		want int
	}{
		{"index", Query{Limit: 50}, 50},
		{"index/last", Query{Limit: 50, Desc: true}, 50},
		{"index/offset", Query{Limit: 50, Offset: benchTrials / 2}, 50},
		{"failed", Query{States: []grid.State{grid.Failed}, Limit: 50}, 50},
		{"succeeded", Query{States: []grid.State{grid.Succeeded}, Limit: 50}, 50},
		{"running", Query{States: []grid.State{grid.Running}, Limit: 50}, 0},
		{"best", Query{Sort: SortObjective, States: []grid.State{grid.Succeeded}, Limit: 10}, 10},
		{"wall", Query{Sort: SortWall, Limit: 50}, 50},
		{"wall/desc", Query{Sort: SortWall, Desc: true, Limit: 50}, 50},
		{"wall/succeeded", Query{Sort: SortWall, Desc: true, States: []grid.State{grid.Succeeded}, Limit: 50}, 50},
		{"wall/failed", Query{Sort: SortWall, Desc: true, States: []grid.State{grid.Failed}, Limit: 50}, 50},
		{"ended", Query{Sort: SortEnded, Desc: true, Limit: 50}, 50},
		{"state", Query{Sort: SortState, Limit: 50}, 50},
		{"metric", Query{Sort: "accuracy", Desc: true, Limit: 50}, 50},
		{"wall/offset", Query{Sort: SortWall, Limit: 50, Offset: benchTrials / 2}, 50},
		{"ended/newest", Query{Sort: SortEnded, Desc: true, Limit: 2000}, 2000},
		{"cpu/offset", Query{Sort: SortCPU, Limit: 50, Offset: benchTrials / 2}, 50},
		{"metric/offset", Query{Sort: "accuracy", Limit: 50, Offset: benchTrials / 2}, 50},
		{"metric/after", Query{Sort: "accuracy", Limit: 50, After: &Cursor{Index: benchTrials / 2, Value: 0.5}}, 50},
		{"attempts/after", Query{Sort: SortAttempts, Limit: 50,
			After: &Cursor{Index: benchTrials / 2, Value: int64(1)}}, 50},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				n := 0
				for _, err := range d.Trials(b.Context(), "s-1", c.q) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != c.want {
					b.Fatalf("got %d trials, want %d", n, c.want)
				}
			}
		})
	}
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			if c, err := d.Counts(b.Context(), "s-1"); err != nil || c.Done() != benchTrials {
				b.Fatalf("got %d done, %v, want %d", c.Done(), err, benchTrials)
			}
		}
	})
	b.Run("ranges", func(b *testing.B) {
		for b.Loop() {
			if left, err := d.Remaining(b.Context(), "s-1"); err != nil || len(left.Open) > 0 ||
				left.Terminal.Count() != benchTrials {
				b.Fatalf("got %d open, %v, want none", len(left.Open), err)
			}
		}
	})
}

// BenchmarkRestart opens the history of ten million trials, half of a sweep of twenty million whose
// trials start in blocks scattered all over it, and reads what remains to be done. That is what a
// master does with history when it starts.
func BenchmarkRestart(b *testing.B) {
	const trials = 10_000_000
	path := filepath.Join(b.TempDir(), "history.db")
	d := openAt(b, path)
	var events []grid.Event
	for i := range int64(blockTrials) {
		events = append(events, finished(i, `{"accuracy": 0.5, "loss": 2.5}`))
	}
	foldEvents(b, d, "s-1", events...)
	number := d.sweep("s-1").Number
	bits := make([]byte, bitmapBytes)
	for i := range bits {
		if i*8/blockTrials%2 == 0 {
			bits[i] = 0xff
		}
	}
	for block := int64(1); block < trials/blockTrials; { // as rows, a thousand blocks at a time
		to := min(block+1000, trials/blockTrials)
		err := d.w.transaction(func() error {
			err := d.w.script(fmt.Sprintf(
				"WITH RECURSIVE n(n) AS (SELECT %d UNION ALL SELECT n + 1 FROM n WHERE n < %d)"+
					" INSERT INTO trial SELECT id + n * %d, state, attempts, started, ended, wall, cpu, memory, objective, metrics, detail"+
					" FROM n, trial WHERE id BETWEEN %d AND %d ORDER BY n, id",
				block, to-1, 2*blockTrials, rowID(number, 0), rowID(number, blockTrials-1)))
			for at := block * 2 * blockTrials / bitmapTrials; err == nil &&
				at <= (to-1)*2*blockTrials/bitmapTrials; at++ {
				err = d.w.run(putKnown, rowID(number, at*bitmapTrials)>>bitmapBits, bits)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		block = to
	}
	mustClose(b, d)
	b.ResetTimer()
	for range b.N {
		d := openAt(b, path)
		left, err := d.Remaining(b.Context(), "s-1")
		if err != nil || left.Terminal.Len() < trials/blockTrials {
			b.Fatalf("got %d trials in %d places, %v", left.Terminal.Count(), left.Terminal.Len(), err)
		}
		b.StopTimer()
		mustClose(b, d)
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms-restart")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFoldRetry folds a million trials that have failed, the retry of all of them, and their
// new results.
func BenchmarkFoldRetry(b *testing.B) {
	d := openAt(b, filepath.Join(b.TempDir(), "history.db"))
	defer mustClose(b, d)
	seq := uint64(0)
	fold := func(what string, batch func(lo int64) *grid.Batch, size int64) {
		took := time.Duration(0)
		for lo := int64(0); lo < benchTrials; {
			var part []Stored
			for range 4 {
				seq++
				part = append(part, Stored{Seq: seq, Batch: batch(lo)})
				lo += size
			}
			begin := time.Now()
			if _, err := d.Fold(b.Context(), part, objectivePolicy); err != nil {
				b.Fatal(err)
			}
			took += time.Since(begin)
		}
		b.ReportMetric(took.Seconds()*1e9/benchTrials, what+"-ns/trial")
	}
	ended := func(attempt int, class grid.Class) func(int64) *grid.Batch {
		return func(lo int64) *grid.Batch {
			all := &grid.Batch{Sweep: "s-1", Node: "node-1"}
			for i := lo; i < lo+benchBatch; i++ {
				at := 2e15 + i*100 + int64(attempt)*1e10
				e := grid.Event{Kind: grid.Finished, Index: i, Attempt: attempt,
					Run: fmt.Sprintf("node-1.%d.%d", attempt, i), Time: at}
				e.Result = &grid.Result{Class: class, Started: at - 1000,
					Usage: grid.Usage{Wall: 1000, CPU: 900, Memory: 1 << 20}}
				if class != grid.ClassNone {
					e.Result.ExitCode, e.Result.Reason = 1, "exit code 1"
				}
				all.Events = append(all.Events, e)
			}
			return all
		}
	}
	for range b.N {
		fold("first", ended(1, grid.ClassExit), benchBatch)
		fold("reopened", func(lo int64) *grid.Batch {
			return &grid.Batch{Sweep: "s-1",
				Events: []grid.Event{{Kind: grid.ReopenedRange, Index: lo,
					End: min(lo+20_000, benchTrials), Time: 3e15}}}
		}, 20_000)
		fold("second", ended(2, grid.ClassNone), benchBatch)
	}
	b.ReportMetric(0, "ns/op")
}
