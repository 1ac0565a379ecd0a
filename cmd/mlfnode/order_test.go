package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestOrderOfAnOlderMaster refuses to submit a sweep in an order that the master would not know.
func TestOrderOfAnOlderMaster(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"version": "0.9"}`:                       "the master runs mlfnode 0.9, which does not support order spread\n  try: ",
		`{"version": "1.9", "orders": ["spread"]}`: "",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(answer))
		}))
		defer s.Close()
		c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
		})
		err := checkMaster(t.Context(), c, grid.OrderSpread, nil)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("of a master that says %s: got %v, want %q", answer, err, want)
		}
		for _, f := range grid.Features() { // which would run other points, or give them other arguments
			if featureNames()[f] == "" {
				t.Errorf("featureNames has no words for %s", f)
			}
			if err := checkMaster(t.Context(), c, grid.OrderIndex, []grid.Feature{f}); err == nil ||
				!strings.Contains(err.Error(), "does not support "+featureNames()[f]) {
				t.Errorf("of a master that says %s: got %v, want it not to know %s", answer, err, f)
			}
		}
	}
}
