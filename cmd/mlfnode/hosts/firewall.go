package hosts

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rule describes what a firewall drops: what one host sends to a port of another.
type rule struct {
	from, to int // to is anyHost for all others
	protocol byte
	port     uint16
}

const anyHost = -1

// Block drops, from now on, what the host sends to a port of another one, or of all others if that
// is nil. network is tcp or udp. Nobody is notified, as with most firewalls.
func (h *Host) Block(other *Host, network string, port int) { h.setBlock(other, network, port, true) }

// Unblock undoes Block with the same arguments.
func (h *Host) Unblock(other *Host, network string, port int) {
	h.setBlock(other, network, port, false)
}

func (h *Host) setBlock(other *Host, network string, port int, block bool) {
	h.harness.t.Helper()
	protocol, known := map[string]byte{"tcp": protocolTCP, "udp": protocolUDP}[network]
	if !known {
		h.harness.t.Fatalf("block %s: want tcp or udp", network)
	}
	r := rule{from: h.number, to: anyHost, protocol: protocol, port: uint16(port)}
	if other != nil {
		r.to = other.number
	}
	f := h.harness.network
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules[r] = block
}

// dropsLocked reports whether a rule drops a frame from one host to the other.
func (s *virtualSwitch) dropsLocked(from, to int, frame []byte) bool {
	protocol, port, ok := destination(frame)
	if !ok {
		return false
	}
	return s.rules[rule{from, to, protocol, port}] || s.rules[rule{from, anyHost, protocol, port}]
}

// Port is a port of a host.
type Port struct {
	Network string // tcp or udp
	Number  int
}

func (p Port) String() string { return p.Network + " " + strconv.Itoa(p.Number) }

// Listening returns, in order, the ports on which programs on the host listen, at any address.
func (h *Host) Listening() []Port {
	h.harness.t.Helper()
	first := h.first()
	var ports []Port
	for file, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", first, file))
		if err != nil && !os.IsNotExist(err) { // without IPv6 there are only two
			h.harness.t.Fatal(err)
		}
		for _, n := range portsIn(string(text), state) {
			ports = append(ports, Port{strings.TrimSuffix(file, "6"), n})
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
func (h *Host) OccupyPort(port int) *Proc {
	h.harness.t.Helper()
	var held *os.File
	err := h.RunInside(func() error {
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err != nil {
			return err
		}
		defer l.Close()
		held, err = l.(*net.TCPListener).File()
		return err
	})
	if err != nil {
		h.harness.t.Fatalf("%s: hold port %d: %v", h.Name, port, err)
	}
	defer held.Close()
	cmd := h.Program("/bin/sleep", "infinity") // it inherits the socket; the kernel accepts the connections
	cmd.ExtraFiles = []*os.File{held}
	return h.StartCommand(cmd)
}

// Leftovers lists what runs on the host apart from OpenSSH's server and what StartCommand has
// started: what other programs have left there.
func (h *Host) Leftovers() []Process {
	h.mu.Lock()
	procs := slices.Clone(h.procs)
	h.mu.Unlock()
	return slices.DeleteFunc(h.Processes(), func(p Process) bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID)) // it may have ended
		own := slices.ContainsFunc(procs, func(q *Proc) bool { return q.PID() == p.PID })
		return own || strings.HasPrefix(filepath.Base(exe), "sshd")
	})
}
