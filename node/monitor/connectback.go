package monitor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"mlfnode/node/api"
)

const (
	// connectTimeout bounds an attempt to connect back.
	connectTimeout = 3 * time.Second
	// datagrams is the number of times that a word is sent, since packets get lost; maxWord bounds
	// the word.
	datagrams = 3
	maxWord   = 64
)

// connectBack tries to connect to a port of the requesting machine, and of no other: a node wants
// to know whether the master can reach it. A request over loopback may come from anywhere through a
// tunnel or a proxy, and must not make this machine probe its own ports, which no network reaches.
func (h *nodeHandlers) connectBack(r *http.Request, ask *api.Reach) (struct{}, error) {
	var none struct{}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || ask.Port < 1 || ask.Port > 65535 || len(ask.Word) > maxWord ||
		(ask.Network != "tcp" && ask.Network != "udp") {
		return none, badRequest("the network, the port or the word of the request is invalid", "")
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.Unmap().IsLoopback() {
		return none, &api.Error{Status: api.StatusSameHost,
			Msg:  "this request comes from the master's own machine, and no network is between it and that",
			Hint: "ask from the machine whose port is to be tried, by an address of the master that other machines have, too"}
	}
	ctx, stop := context.WithTimeout(r.Context(), connectTimeout)
	defer stop()
	var d net.Dialer
	conn, err := d.DialContext(ctx, ask.Network, net.JoinHostPort(host, strconv.Itoa(ask.Port)))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return none, &api.Error{Status: http.StatusBadGateway, Msg: err.Error()}
	}
	defer conn.Close()
	if ask.Network == "udp" {
		for range datagrams {
			_, _ = conn.Write([]byte(ask.Word)) // the other side notices what does not arrive
		}
	}
	return none, nil
}
