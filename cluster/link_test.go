package cluster

import "testing"

// TestLink looks at links that this machine certainly has, and at what it can't tell of. Those that
// go down are in the tests of whole clusters.
func TestLink(t *testing.T) {
	for _, c := range []struct {
		name, own string
		others    []string
		want      bool
	}{
		{"loopback", "127.0.0.1", nil, true},
		{"route to one of two", "127.0.0.1", []string{"fe80::1%none", "127.0.0.2"}, true},
		{"others without an address", "127.0.0.1", []string{"", "a host"}, true},
		{"no route to any", "127.0.0.1", []string{"fe80::1%none"}, false},
		{"translated address", "192.0.2.77", []string{"127.0.0.2"}, true},
		{"every address", "0.0.0.0", nil, true},
		{"no address", "", nil, true},
	} {
		if got := NewLink(c.own).Up(c.others); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	if l := NewLink("192.0.2.77"); !l.Up(nil) {
		t.Error("an address that was never there: got a link that is down")
	} else if l.seen = true; l.Up(nil) {
		t.Error("an address that is gone: got a link that is up")
	}
}
