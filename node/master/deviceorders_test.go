package master

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"mlfnode/jetstream"
)

// TestClearDevice asks nodes that obey, that refuse, and that do not answer.
func TestClearDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Master{}
		cleared := func() chan error {
			done := make(chan error, 1)
			go func() { done <- m.ClearDevice(t.Context(), "a", "1") }()
			synctest.Wait()
			return done
		}
		first, second := cleared(), cleared()
		asked := m.deviceOrders.beat("a", nil)
		if len(asked) != 2 || asked[0].ID == asked[1].ID || asked[0].Clear != "1" || len(m.deviceOrders.beat("b", nil)) != 0 {
			t.Fatalf("got %+v", asked)
		}
		answers := []jetstream.DeviceAnswer{{ID: asked[0].ID}, {ID: "of another"}}
		for range 2 { // a beat repeats what the one before has said
			if open := m.deviceOrders.beat("a", answers); len(open) > 1 || open[0].ID != asked[1].ID {
				t.Errorf("got %+v", open)
			}
		}
		m.deviceOrders.beat("a", append(answers, jetstream.DeviceAnswer{ID: asked[1].ID, Refusal: "no such GPU"}))
		if a, b := <-first, <-second; a == nil == (b == nil) || a != nil && a.Error() != "no such GPU" || b != nil && b.Error() != "no such GPU" {
			t.Errorf("got %v, %v", a, b)
		}
		if err := m.ClearDevice(t.Context(), "silent", "1"); !errors.Is(err, ErrNodeSilent) {
			t.Errorf("got %v", err)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := m.ClearDevice(short, "silent", "1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for range maxDeviceOrders {
			cleared()
		}
		if err := m.ClearDevice(t.Context(), "a", "1"); !errors.Is(err, ErrNodeSilent) {
			t.Errorf("one more: got %v", err)
		}
		time.Sleep(2 * orderTime)
		if len(m.deviceOrders.open) != 0 {
			t.Errorf("left: %+v", m.deviceOrders.open)
		}
	})
}
