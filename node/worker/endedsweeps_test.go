package worker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
)

// TestEndedSweepsCostNothing gives a worker thousands of sweeps that have ended: the dispatcher
// examines none of them, none has a goroutine, and the memory for each does not depend on its
// record. A sweep that continues keeps its whole record.
func TestEndedSweepsCostNothing(t *testing.T) {
	const count = 5000
	record := func(i int, state grid.SweepState) jetstream.Record {
		r := &grid.Sweep{ID: grid.SweepID(fmt.Sprintf("t-%d", i)), State: state, Ended: time.Now()}
		for v := range 100 {
			r.Environ = append(r.Environ, fmt.Sprintf("VARIABLE_%d=%s", v, strings.Repeat("x", 100)))
		}
		r.Task.Command = []string{strings.Repeat("y", 1000)}
		return jetstream.Record{Sweep: r}
	}
	s := newSweepSet()
	goroutines, before := runtime.NumGoroutine(), heap()
	for i := range count {
		state := grid.SweepFinished
		if i%2 == 0 {
			state = grid.SweepCancelled
		}
		r := record(i, state)
		s.update(jetstream.Change{ID: r.Sweep.ID, Record: r})
	}
	if each := (heap() - before) / count; each > 3000 {
		t.Errorf("%d bytes are kept of each sweep, and its record has over 10 kB", each)
	}
	if n := runtime.NumGoroutine(); n > goroutines+count/10 { // besides those of other tests
		t.Errorf("got %d goroutines, %d before", n, goroutines)
	}
	if lanes := s.lanes(); len(lanes) != 0 || len(s.startable) != 0 {
		t.Errorf("got %d lanes, and %d sweeps that are looked at each time; want none", len(lanes), len(s.startable))
	}
	for _, i := range []int{0, 1} {
		r := record(i, grid.SweepRunning)
		s.update(jetstream.Change{ID: r.Sweep.ID, Record: r})
		w, ok := s.active(r.Sweep.ID)
		if !ok || w.record != r.Sweep || w.ctx.Err() != nil ||
			!strings.Contains(strings.Join(w.environ(), " "), "VARIABLE_99=") {
			t.Errorf("%s, which runs again: got active %t with %d variables", r.Sweep.ID, ok, len(w.environ()))
		}
	}
	if len(s.startable) != 2 {
		t.Errorf("%d sweeps are looked at, want those that run", len(s.startable))
	}
	runtime.KeepAlive(s)
}

// TestExcludeIsEvaluatedOnce changes the record of a sweep with exclude expressions: they are not
// evaluated again.
func TestExcludeIsEvaluatedOnce(t *testing.T) {
	axis, err := space.ParseSet("a=0:10")
	if err != nil {
		t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, []string{"a > 4"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(&grid.Sweep{ID: "t-1", State: grid.SweepRunning, Space: points})
	if err != nil {
		t.Fatal(err)
	}
	s := newSweepSet()
	products := map[uintptr]bool{}
	for range 3 {
		var read grid.Sweep
		if err := json.Unmarshal(data, &read); err != nil {
			t.Fatal(err)
		}
		s.update(jetstream.Change{ID: "t-1", Record: jetstream.Record{Sweep: &read}})
		w, _ := s.active("t-1")
		products[reflect.ValueOf(w.record.Space).FieldByName("products").Pointer()] = true
	}
	if len(products) != 1 {
		t.Errorf("after three revisions there are %d spaces, want that of the first", len(products))
	}
}

// heap returns the size of the heap in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
