package main

import (
	"testing"
	"time"

	"mlfnode/node/api"
)

// TestRetentionIsSaidNearItsBounds says nothing of what is kept while there is room, and names what
// is reached or nearly so.
func TestRetentionIsSaidNearItsBounds(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	swept := func(n int, ago time.Duration) (all []api.Sweep) {
		at := now.Add(-ago)
		for range n {
			all = append(all, api.Sweep{Ended: &at})
		}
		return append(all, api.Sweep{}) // one that runs
	}
	for _, tt := range []struct {
		name string
		n    api.Node
		all  []api.Sweep
		want string
	}{
		{"no bounds", api.Node{}, swept(5000, 9000*time.Hour), ""},
		{"room", api.Node{Retention: api.Retention{Sweeps: 10, Age: 100 * time.Hour},
			Store: []api.Store{{Name: "logs", Bytes: 8 << 20, Limit: 10 << 20}}},
			swept(8, 80*time.Hour), ""},
		{"number", api.Node{Retention: api.Retention{Sweeps: 10}}, swept(9, 0),
			"only the newest 10 ended sweeps are kept"},
		{"age", api.Node{Retention: api.Retention{Sweeps: 10, Age: 100 * time.Hour}}, swept(1, 90*time.Hour),
			"ended sweeps are removed after 100h0m0s"},
		{"store", api.Node{Store: []api.Store{{Name: "leases", Bytes: 1, Limit: 1},
			{Name: "events", Bytes: 1 << 20, Limit: 9 << 20}, {Name: "logs", Bytes: 9 << 20, Limit: 10 << 20}}},
			nil, "logs 9.0 MiB of 10 MiB"},
		{"all", api.Node{Retention: api.Retention{Sweeps: 2, Age: time.Hour},
			Store: []api.Store{{Name: "logs", Bytes: 10 << 20, Limit: 10 << 20}}}, swept(2, time.Hour),
			"only the newest 2 ended sweeps are kept; ended sweeps are removed after 1h0m0s; logs 10 MiB of 10 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := nearRetention(&tt.n, tt.all, now); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
