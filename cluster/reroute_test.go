package cluster

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
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
	eventually(t, "the advertised address is found out to be none", func() bool {
		return stateOf(near, "two-nets") == Dead
	})
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

// fails is a network in which no connection can be opened.
type fails struct {
	memberlist.NodeAwareTransport
	err error
}

func (f fails) DialAddressTimeout(memberlist.Address, time.Duration) (net.Conn, error) {
	return nil, f.err
}

// TestOwnFailureIsNotTheMembers has probes fail because of the member, and because of this node
// itself.
func TestOwnFailureIsNotTheMembers(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		timeout time.Duration
		want    State
	}{
		{"refused", syscall.ECONNREFUSED, time.Second, Suspect},
		{"no file is left", syscall.EMFILE, time.Second, Alive},
		{"no file is left on the machine", syscall.ENFILE, time.Second, Alive},
		{"no time is left", errors.New("i/o timeout"), -time.Millisecond, Alive},
	} {
		tab := newTable("self")
		tab.update(&memberlist.Node{Name: "a"}, Alive, time.Now())
		network := transport{fails{err: &net.OpError{Op: "dial", Err: c.err}}, &Cluster{table: tab}}
		_, _ = network.DialAddressTimeout(memberlist.Address{Name: "a"}, c.timeout) // it fails
		if m, _ := tab.find("a"); m.State != c.want {
			t.Errorf("%s: got %v, want %v", c.name, m.State, c.want)
		}
	}
}
