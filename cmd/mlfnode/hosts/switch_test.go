package hosts

import (
	"io"
	"net"
	"testing"
)

// BenchmarkFabric sends over one connection between two hosts, to verify that the switch is not the
// bottleneck of a cluster.
func BenchmarkFabric(b *testing.B) {
	s := New(b, 2, Options{})
	to := s.Hosts[1]
	var l net.Listener
	err := to.Network.RunInside(func() (err error) {
		l, err = net.Listen("tcp", to.Addr+":700")
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			_, err = io.Copy(io.Discard, c)
		}
		done <- err
	}()
	c, err := s.Hosts[0].Network.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
