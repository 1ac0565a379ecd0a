package cluster

import (
	"net"
	"net/netip"
)

// Link is this machine's own way to the others, as its kernel sees it.
type Link struct {
	own  netip.Addr
	seen bool // an interface had the address: it is no translated one
}

// NewLink looks at the interface that has this address.
func NewLink(address string) *Link {
	own, _ := netip.ParseAddr(address) // a link without an address is always up
	l := &Link{own: own.Unmap()}
	l.carrier()
	return l
}

// Up reports whether the interface is up and has a carrier, and whether there is a route to one of the others. What can't be told
// counts as so.
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
	return !l.seen // an address that is gone is trouble of this machine; one that was never there is a router's
}
