package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ChooseAddress is the address that other nodes should reach this machine at. With a seed (HOST or
// HOST:PORT) it is the one that this machine would talk to the seed from; without, that of the
// default route, else the first address that is not loopback, else loopback. A host name that only
// /etc/hosts makes a loopback address, as Debian does for the machine's own name, counts as no
// seed: nobody else could use the answer.
func ChooseAddress(seed string) (netip.Addr, error) {
	return surroundings{lookup: lookup, source: source, own: own}.choose(seed)
}

// surroundings is what a choice looks at.
type surroundings struct {
	lookup func(host string) ([]netip.Addr, error)
	source func(to netip.Addr) (netip.Addr, bool) // the address that a packet to there would come from
	own    func() ([]netip.Addr, error)
}

// faraway are addresses that only a default route leads to: of the blocks for documentation (RFC
// 5737, RFC 3849). Nothing is sent to them.
var faraway = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

func (s surroundings) choose(seed string) (netip.Addr, error) {
	targets, err := s.targets(seed)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, to := range targets {
		if from, ok := s.source(to); ok && (to.IsLoopback() || !from.IsLoopback()) {
			return from, nil
		}
	}
	if len(targets) > 0 && targets[0].IsLoopback() {
		return targets[0], nil
	}
	for _, to := range faraway {
		if from, ok := s.source(to); ok && !from.IsLoopback() {
			return from, nil
		}
	}
	list, err := s.own()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this machine's addresses: %w", err)
	}
	best := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range list { // the first one that others may reach, version 4 before version 6
		if a.IsGlobalUnicast() && (best.IsLoopback() || best.Is6() && a.Is4()) {
			best = a
		}
	}
	return best, nil
}

// targets are the addresses of a seed, none if it says nothing about where the others are.
func (s surroundings) targets(seed string) ([]netip.Addr, error) {
	host := seed
	if h, _, err := net.SplitHostPort(seed); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if host == "" {
		return nil, nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	found, err := s.lookup(host)
	if err != nil {
		return nil, fmt.Errorf("look up the seed: %w", err)
	}
	if host == "localhost" {
		return found, nil
	}
	return slices.DeleteFunc(found, netip.Addr.IsLoopback), nil
}

func lookup(host string) ([]netip.Addr, error) {
	found, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host) // bounded by the resolver
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, err
}

// source asks the kernel for a route, by a UDP socket that sends nothing.
func source(to netip.Addr) (netip.Addr, bool) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), true
}

// own lists the addresses of the interfaces that are up.
func own() ([]netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				list = append(list, prefix.Addr().Unmap())
			}
		}
	}
	return list, nil
}
