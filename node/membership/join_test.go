package membership

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestNamesThatAreNotFound distinguishes a name that does not exist from a name server that does
// not answer.
func TestNamesThatAreNotFound(t *testing.T) {
	for _, c := range []struct {
		dns  net.DNSError
		want string
	}{
		{net.DNSError{Err: "no such host", Name: "m", IsNotFound: true}, `there is no host "m"`},
		{net.DNSError{Err: "i/o timeout", Name: "m", Server: "10.0.0.1:53", IsTimeout: true, IsTemporary: true},
			`the address of "m" could not be looked up: i/o timeout`},
		{net.DNSError{Err: "server misbehaving", Name: "m", IsTemporary: true},
			`the address of "m" could not be looked up: server misbehaving`},
	} {
		err := ExplainReach("m:7420", fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Net: "tcp", Err: &c.dns}))
		var refusal *api.Error
		if !errors.As(err, &refusal) || refusal.Msg != c.want || !strings.Contains(refusal.Hint, "IP address") {
			t.Errorf("%v: got %v, want %q", &c.dns, err, c.want)
		}
	}
}
