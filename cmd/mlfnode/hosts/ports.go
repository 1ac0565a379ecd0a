package hosts

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Port is a port of a host.
type Port struct {
	Network string // tcp or udp
	Number  int
}

func (p Port) String() string { return p.Network + " " + strconv.Itoa(p.Number) }

// Listening returns, in order, the ports on which programs on the host listen, at any address.
func (n *Network) Listening() []Port {
	n.host.harness.t.Helper()
	first := n.host.Processes.first()
	var ports []Port
	for file, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", first, file))
		if err != nil && !os.IsNotExist(err) { // without IPv6 there are only two
			n.host.harness.t.Fatal(err)
		}
		for _, number := range portsIn(string(text), state) {
			ports = append(ports, Port{strings.TrimSuffix(file, "6"), number})
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(ports)
}

// portsIn parses /proc/net/tcp and similar files, see proc(5): number, local address, remote
// address, state.
func portsIn(text, state string) (ports []int) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports = append(ports, int(n))
		}
	}
	return ports
}

// OccupyPort starts a program on the host that listens on a TCP port, accepts every connection and
// never sends anything. It serves as a port that something else holds and, on port 22, as a server
// that hangs.
func (n *Network) OccupyPort(port int) *Proc {
	n.host.harness.t.Helper()
	var held *os.File
	err := n.RunInside(func() error {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		defer l.Close()
		held, err = l.(*net.TCPListener).File()
		return err
	})
	if err != nil {
		n.host.harness.t.Fatalf("%s: hold port %d: %v", n.host.Name, port, err)
	}
	defer held.Close()
	cmd := n.host.Program("/bin/sleep", "infinity") // it inherits the socket; the kernel accepts the connections
	cmd.ExtraFiles = []*os.File{held}
	return n.host.StartCommand(cmd)
}
