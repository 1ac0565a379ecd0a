package cluster

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChooseAddress(t *testing.T) {
	a := netip.MustParseAddr
	host := surroundings{
		lookup: func(name string) ([]netip.Addr, error) {
			switch name {
			case "debian": // its own name in /etc/hosts
				return []netip.Addr{a("127.0.1.1")}, nil
			case "localhost":
				return []netip.Addr{a("127.0.0.1")}, nil
			case "both":
				return []netip.Addr{a("127.0.1.1"), a("10.1.0.9")}, nil
			}
			return nil, errors.New("no such host")
		},
		own: func() ([]netip.Addr, error) {
			return []netip.Addr{a("127.0.0.1"), a("fe80::1"), a("fd00::5"), a("10.9.0.5"), a("10.9.0.6")}, nil
		},
	}
	routes := func(to netip.Addr) (netip.Addr, bool) {
		switch {
		case to.IsLoopback():
			return a("127.0.0.1"), true
		case netip.MustParsePrefix("10.1.0.0/16").Contains(to):
			return a("10.1.0.5"), true
		case to.Is4():
			return a("192.168.0.5"), true // default route
		}
		return netip.Addr{}, false
	}
	none := func(to netip.Addr) (netip.Addr, bool) { return a("127.0.0.1"), to.IsLoopback() }
	tests := []struct {
		seed, want string
		source     func(netip.Addr) (netip.Addr, bool)
	}{
		{"10.1.0.1:7422", "10.1.0.5", routes},
		{"10.1.0.1", "10.1.0.5", routes},
		{"8.8.8.8", "192.168.0.5", routes},
		{"", "192.168.0.5", routes},
		{"127.0.0.3:7422", "127.0.0.1", routes},
		{"[::1]:7422", "127.0.0.1", routes},
		{"localhost", "127.0.0.1", routes},
		{"debian:7422", "192.168.0.5", routes},
		{"both:7422", "10.1.0.5", routes},
		{"", "10.9.0.5", none},
		{"debian", "10.9.0.5", none},
		{"10.1.0.1", "10.9.0.5", none},
		{"missing", "", routes},
	}
	for _, tt := range tests {
		host.source = tt.source
		got, err := host.choose(tt.seed)
		if (err != nil) != (tt.want == "") || err == nil && got != a(tt.want) {
			t.Errorf("seed %q: got %v, %v, want %s", tt.seed, got, err, tt.want)
		}
	}
	host.source = none
	host.own = func() ([]netip.Addr, error) { return []netip.Addr{a("127.0.0.1"), a("fe80::1")}, nil }
	if got, err := host.choose(""); err != nil || got != a("127.0.0.1") {
		t.Errorf("a machine without a network: got %v, %v", got, err)
	}
}

// TestChooseAddressInNamespace asks a real kernel with two interfaces.
func TestChooseAddressInNamespace(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and the program ip")
		}
		t.Skip("needs root and the program ip")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		inNamespace(t)
	}()
	<-done
}

func inNamespace(t *testing.T) {
	ip := func(args string) {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", args, err, out)
		}
	}
	check := func(seed, want string) {
		got, err := ChooseAddress(seed)
		if err != nil || got.String() != want {
			t.Errorf("seed %q: got %v, %v, want %s", seed, got, err, want)
		}
	}
	ip("link set lo up")
	check("", "127.0.0.1")
	ip("link add one type veth peer name uno")
	ip("link add two type veth peer name due")
	ip("addr add 10.71.0.5/16 dev one")
	ip("addr add 10.72.0.5/16 dev two")
	for _, name := range []string{"one", "uno", "two", "due"} {
		ip("link set " + name + " up")
	}
	check("", "10.71.0.5")
	check("10.72.3.4:7422", "10.72.0.5")
	check("127.0.0.1:7422", "127.0.0.1")
	ip("route add default via 10.72.0.1")
	check("", "10.72.0.5")
	check("10.71.3.4", "10.71.0.5")
	check("10.71.0.5", "10.71.0.5")
	check("203.0.113.9", "10.72.0.5")
}
