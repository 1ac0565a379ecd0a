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

// port is a port that a node listens on.
type port struct {
	name    string
	network string
	number  int
	setting string // in node.yaml
}

// TakenPort is a port of the node that it can't listen on.
type TakenPort struct {
	Port string // such as 7422/tcp
	PID  int    // of the process that has the port; 0 if there is none or it is unknown
	Finding
}

// TakenPorts lists the ports that a node with the settings of h could not listen on now. They
// include those of a running node.
func TakenPorts(h Host) []TakenPort {
	h.Running = false
	var taken []TakenPort
	for _, f := range h.checkPorts() {
		if f.State != Bad {
			continue
		}
		_, port, _ := strings.Cut(f.Name, " port ")
		t := TakenPort{Port: port, Finding: f}
		if _, err := fmt.Sscanf(f.Cause, "held by process %d", &t.PID); err != nil {
			t.PID = 0
		}
		taken = append(taken, t)
	}
	return taken
}

// checkPorts checks whether the node can listen on its ports.
func (h Host) checkPorts() []Finding {
	wanted := []port{{"gossip port", "tcp", h.Ports.Gossip, "ports.gossip"},
		{"gossip port", "udp", h.Ports.Gossip, "ports.gossip"}}
	if h.Master {
		wanted = append(wanted, port{"api port", "tcp", h.Ports.API, "ports.api"},
			port{"nats port", "tcp", h.Ports.NATS, "ports.nats"})
	}
	found := make([]Finding, len(wanted))
	for i, p := range wanted {
		found[i] = h.judgePort(p, h.tryPort(p))
	}
	return found
}

// tryPort returns the error of an attempt to listen on a port. It does not listen, because a node
// that starts at this moment must find its ports free.
func (h Host) tryPort(p port) error {
	if p.network == "udp" {
		if _, taken := listeningSocket(p.network, h.Bind, p.number); taken {
			return syscall.EADDRINUSE
		}
		return nil // the check of the TCP port finds a wrong address or a missing privilege
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

// bindTCP binds a port as a listener would, without listening. With SO_REUSEADDR (socket(7)) the
// kernel still lets a listener bind the port, and refuses bindTCP if there is a listener.
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
		return bad(label, "the node runs and does not listen on it",
			"look into the node's log; its settings may name another port")
	case err == nil:
		return fine(label, "free")
	case errors.Is(err, syscall.EADDRINUSE):
		holder := portHolder(p.network, h.Bind, p.number)
		if h.Running && (holder == "" || strings.Contains(holder, "mlfnode")) {
			return fine(label, "held by this node")
		}
		if holder == "" && h.tryPort(p) == nil {
			return fine(label, "free") // its holder has exited in the meantime
		}
		if holder == "" {
			holder = "another program"
		}
		return bad(label, "held by "+holder, fmt.Sprintf("end that program, or set %s in node.yaml", p.setting))
	case errors.Is(err, syscall.EACCES):
		return bad(label, "this user may not listen on it",
			fmt.Sprintf("choose a port from 1024 on with %s in node.yaml", p.setting))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return bad(label, h.Bind+" is not an address of this host",
			"correct `bind:` in node.yaml; `ip addr` lists the addresses")
	}
	return bad(label, err.Error(), fmt.Sprintf("choose another port with %s in node.yaml", p.setting))
}

// portHolder describes the process that listens on a port of an address; "" if it is unknown.
func portHolder(network, bind string, number int) string {
	if inode, ok := listeningSocket(network, bind, number); ok {
		return socketOwner("socket:[" + inode + "]")
	}
	return ""
}

// listeningSocket returns the inode of the socket that listens on a port of an address.
func listeningSocket(network, bind string, number int) (inode string, ok bool) {
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

// listenState is the state of a listening socket in /proc/net/tcp and of an unconnected one in
// /proc/net/udp (proc_pid_net(5)).
var listenState = map[string]string{"tcp": "0A", "udp": "07"}

// socketInode returns the inode of a listening socket from lines such as
// `0: 00000000:1CFE 00000000:0000 0A … uid timeout inode …`.
func socketInode(table, network, bind string, number int) string {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == listenState[network] && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) &&
			conflicts(f[1], bind) {
			return f[9]
		}
	}
	return ""
}

// conflicts reports whether a socket on an address such as `0100007F:1CFE` keeps others from
// listening on the address bind. Programs can share a port on different IPv4 addresses; every IPv6
// socket counts as a conflict.
func conflicts(local, bind string) bool {
	ip := net.ParseIP(bind).To4()
	host, _, _ := strings.Cut(local, ":")
	if ip == nil || ip.IsUnspecified() || strings.Trim(host, "0") == "" || len(host) > 8 {
		return true
	}
	return host == fmt.Sprintf("%08X", binary.NativeEndian.Uint32(ip))
}

// socketOwner describes the process that has a socket open.
func socketOwner(socket string) string {
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
