package cluster

import (
	"net"
	"net/netip"
)

// Link is the network link of this machine, as its kernel sees it.
type Link struct {
	own  netip.Addr
	seen bool // an interface had the address, so it is not a translated (NAT) address
}

// NewLink returns the link of the interface that has this address.
func NewLink(address string) *Link {
	own, _ := netip.ParseAddr(address) // a link without an address is always up
	l := &Link{own: own.Unmap()}
	l.carrier()
	return l
}

// Up reports whether the interface is up and has a carrier, and whether there is a route to one of
// the others. If that can't be determined, the link counts as up.
func (l *Link) Up(others []string) bool {
	if !l.carrier() {
		return false
	}
	asked := 0
	for _, text := range others {
		to, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		asked++
		if _, ok := source(to); ok {
			return true
		}
	}
	return asked == 0
}

func (l *Link) carrier() bool {
	if !l.own.IsValid() || l.own.IsUnspecified() {
		return true
	}
	all, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			return true
		}
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == l.own {
				l.seen = true
				const both = net.FlagUp | net.FlagRunning
				return i.Flags&both == both
			}
		}
	}
	return !l.seen // an address that was removed is this machine's problem; one that was never here belongs to a router
}
