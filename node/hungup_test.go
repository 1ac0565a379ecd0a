package node

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
)

// TestMasterThatHangsUpIsAskedAgain contacts a machine that ends each connection, as while a master
// is killed: it is asked again until it should be back.
func TestMasterThatHangsUpIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		hangUp func(*net.TCPConn) error
	}{
		{"at once", func(c *net.TCPConn) error { return c.SetLinger(0) }},
		{"after the first words", func(c *net.TCPConn) error {
			_, err := c.Read(make([]byte, 16))
			return err
		}},
		{"in order", func(c *net.TCPConn) error { return c.CloseWrite() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var calls atomic.Int32
			var closed atomic.Bool
			ended := make(chan struct{})
			defer func() {
				closed.Store(true)
				l.Close()
				<-ended
			}()
			go func() {
				defer close(ended)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					calls.Add(1)
					if err := tt.hangUp(c.(*net.TCPConn)); err != nil && !closed.Load() {
						t.Error(err)
					}
					c.Close()
				}
			}()
			c := &Contact{masters: []string{l.Addr().String()}, tls: &tls.Config{InsecureSkipVerify: true}}
			if _, err := reachMaster(t.Context(), c, 4*reconnectInterval, func() {}); err == nil {
				t.Error("reached a master that is not there")
			}
			closed.Store(true) // what the last call leaves may be cut off
			if n := calls.Load(); n < 2 {
				t.Errorf("the master was asked %d times within %v, want at least 2", n, 4*reconnectInterval)
			}
		})
	}
}
