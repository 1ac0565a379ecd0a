package natsd

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSecondServerIsRefused starts two servers in one folder: the second gets ErrInUse until the
// first is closed.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	first, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("second start: got %v, want ErrInUse", err)
	}
	first.Close()
	second, err := Start(cfg)
	if err != nil {
		t.Fatalf("start after the first is closed: %v", err)
	}
	second.Close()
}

// TestSlowIsNotDamaged lets nats-server report late that it has started, as on a busy machine: an
// intact store is not reported as damaged, and a damaged one is still detected.
func TestSlowIsNotDamaged(t *testing.T) {
	t.Parallel()
	slow := server.HealthzError{Type: server.HealthzErrorConn, Error: "startup did not complete"}
	broken := server.HealthzError{Type: server.HealthzErrorStream, Error: "stream 'records' could not be recovered"}
	for name, c := range map[string]struct {
		answers []server.HealthzError // one for each question; then none
		always  bool                  // the last one repeats
		want    string
	}{
		"whole":            {},
		"slow":             {answers: []server.HealthzError{slow, slow, slow}},
		"damaged":          {answers: []server.HealthzError{broken}, want: "is damaged: stream 'records'"},
		"slow and damaged": {answers: []server.HealthzError{slow, broken}, want: "is damaged: stream 'records'"},
		"never ready":      {answers: []server.HealthzError{slow}, always: true, want: "does not become ready"},
	} {
		t.Run(name, func(t *testing.T) {
			err := streamErrors("folder", func() []server.HealthzError {
				if len(c.answers) == 0 {
					return nil
				}
				now := c.answers[:1]
				if !c.always {
					c.answers = c.answers[1:]
				}
				return now
			})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want nothing", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case c.always && strings.Contains(err.Error(), "damaged"):
				t.Errorf("a store that may be whole is called damaged: %v", err)
			}
		})
	}
}
