package cluster

import (
	"net"
	"testing"
	"time"
)

// TestReroute has a node advertise an address in a network that the other one is not in.
func TestReroute(t *testing.T) {
	t.Parallel()
	cfg := config("two-nets")
	at := cfg.Bind
	cfg.Advertise = freshAddress() // where nobody listens
	far := start(t, cfg)
	near := start(t, config("one-net"))
	_, port, err := net.SplitHostPort(far.address)
	if err != nil {
		t.Fatal(err)
	}
	at = net.JoinHostPort(at, port)
	meet := func() {
		t.Helper()
		if err := near.Join(t.Context(), []string{at}); err != nil {
			t.Fatal(err)
		}
	}
	meet()
	eventually(t, "the advertised address is found out to be none", func() bool { return stateOf(near, "two-nets") == Dead })
	near.Reroute(far.address, at)
	meet()
	both := func() bool { return stateOf(near, "two-nets") == Alive && stateOf(far, "one-net") == Alive }
	eventually(t, "both are alive", both)
	r := changes{}
	defer near.Watch(r.add)()
	<-time.After(4 * time.Second) // some rounds of probes
	if n := r.count(Dead); n > 0 || !both() {
		t.Errorf("got %q, want both to stay alive", r.of("two-nets"))
	}
}
