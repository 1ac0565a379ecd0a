package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is one that a node listens on.
type port struct {
	name    string
	network string
	number  int
	setting string // of node.yaml
}

// Taken is a port of the node that it can't listen on.
type Taken struct {
	Port string // as 7422/tcp
	PID  int    // of the process that holds it, 0 where that is not so or can't be seen
	Finding
}

// TakenPorts lists the ports of a node with the settings of h that it could not listen on now. A node that runs holds its own.
func TakenPorts(h Host) []Taken {
	h.Running = false
	var taken []Taken
	for _, f := range h.ports() {
		if f.State != Bad {
			continue
		}
		_, port, _ := strings.Cut(f.Name, " port ")
		t := Taken{Port: port, Finding: f}
		if _, err := fmt.Sscanf(f.Cause, "held by process %d", &t.PID); err != nil {
			t.PID = 0
		}
		taken = append(taken, t)
	}
	return taken
}

// ports looks whether the node's ports can be listened on.
func (h Host) ports() []Finding {
	wanted := []port{{"gossip port", "tcp", h.Ports.Gossip, "ports.gossip"}, {"gossip port", "udp", h.Ports.Gossip, "ports.gossip"}}
	if h.Master {
		wanted = append(wanted, port{"api port", "tcp", h.Ports.API, "ports.api"}, port{"nats port", "tcp", h.Ports.NATS, "ports.nats"})
	}
	found := make([]Finding, len(wanted))
	for i, p := range wanted {
		found[i] = h.judgePort(p, h.tryPort(p))
	}
	return found
}

// tryPort gives the error of somebody who wanted to listen on a port. It does not listen: a node that starts at this moment must find its
// ports free.
func (h Host) tryPort(p port) error {
	if p.network == "udp" {
		if _, taken := listener(p.network, h.Bind, p.number); taken {
			return syscall.EADDRINUSE
		}
		return nil // whether the address is right and the user may have the port is found out with TCP
	}
	ip := net.IPv6unspecified
	if h.Bind != "" {
		a, err := net.ResolveIPAddr("ip", h.Bind)
		if err != nil {
			return err
		}
		ip = a.IP
	}
	err := bindTCP(ip, p.number)
	if errors.Is(err, syscall.EAFNOSUPPORT) && h.Bind == "" { // a machine without IPv6
		return bindTCP(net.IPv4zero, p.number)
	}
	return err
}

// bindTCP takes a port as a listener would, but for the listening. The kernel gives it to a listener all the same, since both share it
// (SO_REUSEADDR, socket(7)), and refuses it where there is a listener.
func bindTCP(ip net.IP, port int) error {
	family, address := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())})
	if v4 := ip.To4(); v4 != nil {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte(v4)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, address))
}

func (h Host) judgePort(p port, err error) Finding {
	label := fmt.Sprintf("%s %d/%s", p.name, p.number, p.network)
	switch {
	case err == nil && h.Running:
		return bad(label, "the node runs and does not listen on it", "look into the node's log; its settings may name another port")
	case err == nil:
		return fine(label, "free")
	case errors.Is(err, syscall.EADDRINUSE):
		who := holder(p.network, h.Bind, p.number)
		if h.Running && (who == "" || strings.Contains(who, "mlfnode")) {
			return fine(label, "held by this node")
		}
		if who == "" && h.tryPort(p) == nil {
			return fine(label, "free") // its holder has exited in the meantime
		}
		if who == "" {
			who = "another program"
		}
		return bad(label, "held by "+who, fmt.Sprintf("end that program, or set %s in node.yaml", p.setting))
	case errors.Is(err, syscall.EACCES):
		return bad(label, "this user may not listen on it", fmt.Sprintf("choose a port from 1024 on with %s in node.yaml", p.setting))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return bad(label, h.Bind+" is not an address of this host", "correct `bind:` in node.yaml; `ip addr` lists the addresses")
	}
	return bad(label, err.Error(), fmt.Sprintf("choose another port with %s in node.yaml", p.setting))
}

// holder says which process holds a port of an address, "" where that can't be seen.
func holder(network, bind string, number int) string {
	if inode, ok := listener(network, bind, number); ok {
		return owner("socket:[" + inode + "]")
	}
	return ""
}

// listener gives the inode of the socket that holds a port of an address.
func listener(network, bind string, number int) (inode string, ok bool) {
	for _, table := range []string{network, network + "6"} {
		b, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		if inode := socketInode(string(b), network, bind, number); inode != "" {
			return inode, true
		}
	}
	return "", false
}

// listening is the state of a socket that listens, in /proc/net/tcp (proc_pid_net(5)); a UDP socket that waits says 07.
var listening = map[string]string{"tcp": "0A", "udp": "07"}

// socketInode finds the inode of a socket in lines as `0: 00000000:1CFE 00000000:0000 0A … uid timeout inode …`.
func socketInode(table, network, bind string, number int) string {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == listening[network] && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && inTheWay(f[1], bind) {
			return f[9]
		}
	}
	return ""
}

// inTheWay reports whether a socket on an address, as `0100007F:1CFE`, keeps others from the address bind. Several programs may
// have one port of several addresses; what stands in the way of IPv6 is not told apart.
func inTheWay(local, bind string) bool {
	ip := net.ParseIP(bind).To4()
	host, _, _ := strings.Cut(local, ":")
	if ip == nil || ip.IsUnspecified() || strings.Trim(host, "0") == "" || len(host) > 8 {
		return true
	}
	return host == fmt.Sprintf("%08X", binary.NativeEndian.Uint32(ip))
}

// owner finds the process that has a socket open.
func owner(socket string) string {
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && to == socket {
			dir := filepath.Dir(filepath.Dir(file))
			name, _ := os.ReadFile(filepath.Join(dir, "comm"))
			return fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(name)))
		}
	}
	return ""
}
