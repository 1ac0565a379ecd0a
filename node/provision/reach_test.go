package provision

import (
	"net"
	"strings"
	"testing"
)

// TestMasterWhoseNameIsNotFound tells a name that does not exist from a name server that does not
// answer.
func TestMasterWhoseNameIsNotFound(t *testing.T) {
	for want, dns := range map[string]*net.DNSError{
		"(the name has no address)":                      {Err: "no such host", Name: "m", IsNotFound: true},
		"(the name could not be looked up: i/o timeout)": {Err: "i/o timeout", Name: "m", IsTimeout: true},
		"(the name could not be looked up: server misbehaving)": {Err: "server misbehaving",
			Name: "m", IsTemporary: true},
	} {
		if p := unreachableProblem("m:7420", &net.OpError{Op: "dial", Net: "tcp", Err: dns}); !strings.Contains(p.Cause,
			want) || p.Cure == "" {
			t.Errorf("%v: got %v, want %s", dns, p, want)
		}
	}
}
