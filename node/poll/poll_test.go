package poll

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntilReturnsWhatEndedIt(t *testing.T) {
	t.Parallel()
	broken, over := errors.New("broken"), errors.New("over")
	tests := map[string]struct {
		cond  func(calls int) (bool, error)
		calls int
		want  error
	}{
		"true at once":   {func(int) (bool, error) { return true, nil }, 1, nil},
		"true later":     {func(calls int) (bool, error) { return calls == 3, nil }, 3, nil},
		"an error":       {func(calls int) (bool, error) { return false, map[int]error{2: broken}[calls] }, 2, broken},
		"context's end":  {func(int) (bool, error) { return false, nil }, 10, over},
		"error and true": {func(int) (bool, error) { return true, broken }, 1, broken},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 9500*time.Millisecond, over)
				defer cancel()
				calls := 0
				err := Until(ctx, time.Second, func() (bool, error) {
					calls++
					return tt.cond(calls)
				})
				if !errors.Is(err, tt.want) || calls != tt.calls {
					t.Errorf("got %v after %d calls, want %v after %d", err, calls, tt.want, tt.calls)
				}
			})
		})
	}
}

func TestUntilChecksOnceEvenAfterTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Until(ctx, time.Hour, func() (bool, error) { return true, nil }); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestWithinReportsWhetherItWasInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for after, want := range map[time.Duration]bool{0: true, 4 * time.Second: true, 6 * time.Second: false} {
			began := time.Now()
			got := Within(t.Context(), 5*time.Second, 100*time.Millisecond, func() bool {
				return time.Since(began) >= after
			})
			if got != want {
				t.Errorf("true after %v: got %v, want %v", after, got, want)
			}
		}
	})
}

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if !Sleep(t.Context(), time.Minute) {
			t.Error("got false without an end of the context")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if Sleep(ctx, time.Minute) || time.Since(began) != time.Second {
			t.Errorf("got true, or false after %v, want false after 1s", time.Since(began))
		}
	})
}

func TestBackoffDoublesUpToTheLongest(t *testing.T) {
	t.Parallel()
	b := Backoff{First: 10, Longest: 55}
	var got []time.Duration
	for range 5 {
		got = append(got, b.Next())
	}
	b.Reset()
	got = append(got, b.Next())
	if want := []time.Duration{10, 20, 40, 55, 55, 10}; !slices.Equal(got, want) {
		t.Errorf("got pauses %d, want %d", got, want)
	}
}

func TestJitterStaysAroundItsDuration(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := Jitter(100); d < 50 || d >= 150 {
			t.Fatalf("got %d, want 50 to 149", d)
		}
	}
}
