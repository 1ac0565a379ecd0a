package jetstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestAddressesOfTheMaster gives a node some addresses at which another service answers, or none
// does: it still reaches the master immediately.
func TestAddressesOfTheMaster(t *testing.T) {
	l := newTestServer(t)
	listen := func(answer func(net.Conn)) string {
		s, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					defer c.Close()
					answer(c)
				})
			}
		})
		t.Cleanup(func() {
			s.Close()
			serving.Wait()
		})
		return s.Addr().String()
	}
	silent := listen(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	cut := listen(func(net.Conn) {})
	foreign := newAuthority(t).tlsConfig("m")
	impostor := listen(func(c net.Conn) { _ = tls.Server(c, foreign).Handshake() })
	r := l.connectConfig("w")
	master := r.Addresses()[0]
	for name, wrong := range map[string][]string{
		"silent": {silent, silent, silent}, "cut": {cut, cut}, "impostor": {impostor, impostor},
		"refused":    {"127.0.0.1:1", "127.0.0.1:1"},
		"no address": {"", "nonsense", "127.0.0.1:99999"}, "all": {silent, cut, impostor, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := r
			r.Addresses = func() []string { return append(wrong[:len(wrong):len(wrong)], master) }
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			began := time.Now()
			link, err := Connect(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			defer link.Close()
			if took := time.Since(began); took > dialLimit {
				t.Errorf("connected after %v, want less than the limit of one address, %v", took, dialLimit)
			}
		})
	}
	none := r
	none.Addresses = func() []string { return nil }
	if _, err := (&dialer{ConnectConfig: none, ctx: t.Context()}).Dial("", ""); err == nil {
		t.Error("connected to no address")
	}
}
