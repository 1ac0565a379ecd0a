package jetstream

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// TestSlowIsNotDamaged has nats-server answer late that it has started, as on a busy machine: nobody is told to move a store away
// that is whole, and one that is damaged is still found.
func TestSlowIsNotDamaged(t *testing.T) {
	slow := server.HealthzError{Type: server.HealthzErrorConn, Error: "startup did not complete"}
	broken := server.HealthzError{Type: server.HealthzErrorStream, Error: "stream 'records' could not be recovered"}
	for name, c := range map[string]struct {
		answers []server.HealthzError // one for each question; then none
		always  bool                  // the last one again and again
		want    string
	}{
		"whole":            {},
		"slow":             {answers: []server.HealthzError{slow, slow, slow}},
		"damaged":          {answers: []server.HealthzError{broken}, want: "is damaged: stream 'records'"},
		"slow and damaged": {answers: []server.HealthzError{slow, broken}, want: "is damaged: stream 'records'"},
		"never ready":      {answers: []server.HealthzError{slow}, always: true, want: "does not get ready"},
	} {
		t.Run(name, func(t *testing.T) {
			err := damage("folder", func() []server.HealthzError {
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

// TestProbe writes through a store and reads back, again and again, and finds out when the server has ended.
func TestProbe(t *testing.T) {
	server, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if err := errors.Join(s.Ping(t.Context()), s.Probe(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Records.All(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("a probe counts as a record: %v, %v", all, err)
	}
	server.Close()
	if s.Ping(t.Context()) == nil || s.Probe(t.Context()) == nil {
		t.Error("a store without a server answers")
	}
}
