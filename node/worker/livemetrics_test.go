package worker

import (
	"context"
	"os"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestMetricsOfARunningTrial runs a trial for hours of fake time: its metrics are sent when they
// change and periodically, and the event stream does not grow.
func TestMetricsOfARunningTrial(t *testing.T) {
	began, end := make(chan *executor.Attempt, 1), make(chan struct{})
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		began <- a
		<-end
		return succeeded()
	})
	told := make(chan *grid.Batch, 10_000)
	t.Cleanup(s.store.Calls.HandleMetrics(func(b *grid.Batch) { told <- b }))
	r := s.sweep("t-1", 1, 1, nil)
	s.run()
	s.lease(r, 0, 1)
	run := <-began
	s.events("t-1", func(all []grid.Event) bool { return len(only(all, grid.Started)) == 1 })
	_, before, err := s.store.Events.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := func(line string) {
		f, err := os.OpenFile(variable(run.Env, "MLF_METRICS"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	var a *attempt
	for _, w := range s.tail.watched() {
		a = w
	}
	look := func(now time.Time) {
		s.tail.scanAttempt(t.Context(), a, now)
	}
	clock := time.Now().Add(time.Hour)
	report(`{"loss": 0.5}`)
	look(clock)
	first := <-told
	if len(first.Events) != 1 || string(first.Events[0].Metrics["loss"]) != "0.5" || first.Events[0].Run != a.run {
		t.Fatalf("got %+v", first)
	}
	count := 0
	for range 720 { // an hour of checks with nothing new
		clock = clock.Add(metricsInterval + time.Millisecond)
		look(clock)
	}
	report(`{"loss": 0.25}`)
	clock = clock.Add(metricsInterval + time.Millisecond)
	look(clock)
	for b := range told {
		if count++; string(b.Events[0].Metrics["loss"]) == "0.25" {
			if got, want := curveTexts(t, b.Events[0].Curves)["loss"], "1:0.5 2:0.25"; got != want {
				t.Errorf("curve of the running trial: got %q, want %q", got, want)
			}
			break
		}
		if b.Events[0].Time != first.Events[0].Time {
			t.Fatalf("metrics that have not changed have another time")
		}
	}
	if count < 50 || count > 62 {
		t.Errorf("an hour of unchanged metrics was told %d times, want about once a minute", count)
	}
	if _, after, err := s.store.Events.Bounds(t.Context()); err != nil || after != before {
		t.Errorf("the event stream has grown by %d messages, %v", after-before, err)
	}
	report(`{"loss": 0.125, "step": 9}`)
	close(end)
	if got, want := curveTexts(t, s.finished("t-1", 1)[0].Result.Curves)["loss"], "1:0.5 2:0.25 9:0.125"; got != want {
		t.Errorf("curve of the result: got %q, want %q", got, want)
	}
}
