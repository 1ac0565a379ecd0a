package monitor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"mlfnode/node/api"
)

// TestReachSparesTheMastersOwnPorts lets a client at the end of a tunnel request ports that only
// this machine reaches.
func TestReachSparesTheMastersOwnPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		from string
		want int
	}{
		{"127.0.0.1:40000", api.StatusSameHost}, {"127.8.9.1:40000", api.StatusSameHost},
		{"[::1]:40000", api.StatusSameHost},
		{"[::ffff:127.0.0.1]:40000", api.StatusSameHost}, {"@", http.StatusBadRequest},
		{"192.0.2.1:40000", http.StatusBadGateway},
		{"[fe80::1%eth0]:40000", http.StatusBadGateway},
	} {
		for _, network := range []string{"tcp", "udp"} {
			ctx := t.Context()
			if c.want == http.StatusBadGateway { // it is tried, and fails immediately
				ctx = cancelled
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://master"+api.PathReach, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.RemoteAddr = c.from
			var refusal *api.Error
			if _, err := new(nodeHandlers).connectBack(r, &api.Reach{Network: network, Port: port}); !errors.As(err,
				&refusal) || refusal.Status != c.want {
				t.Errorf("%s from %s: got %v, want status %d", network, c.from, err, c.want)
			}
		}
	}
}
