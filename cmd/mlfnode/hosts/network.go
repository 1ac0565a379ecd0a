package hosts

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// dialLimit bounds a connection attempt of Dial.
const dialLimit = 3 * time.Second

// Network is a host's part of the network: its interface, what the switch does to its frames, and
// its ports.
type Network struct {
	host    *Host
	number  int // of its port on the switch
	network *virtualSwitch
}

// connect gives the host its interface, eth0, and connects the other end to the switch.
func (n *Network) connect(p *power) error {
	var tap *os.File
	err := p.call(func() (err error) {
		tap, err = openTap("eth0")
		return err
	})
	if err != nil {
		return err
	}
	n.network.plug(n.number, tap)
	for _, args := range [][]string{
		{"link", "set", "eth0", "address", macOf(n.number).String()},
		{"addr", "add", n.host.Addr + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "dev", "eth0"}, // other networks are unreachable after a while, as on most machines
	} {
		if r := n.host.Run(exec.Command("ip", args...)); r.Code != 0 {
			return fmt.Errorf("ip %v: %s", args, r.Stderr)
		}
	}
	return nil
}

// unplug removes the host's interface.
func (n *Network) unplug() { n.network.unplug(n.number) }

// SetConditions determines what happens to frames that the host sends from now on.
func (n *Network) SetConditions(c LinkConditions) { n.network.setConditions(n.number, c) }

// Disconnect disconnects the host from the network. Its programs keep running and are not notified.
func (n *Network) Disconnect() { n.network.setDown(n.number, true) }

// Reconnect undoes Disconnect.
func (n *Network) Reconnect() { n.network.setDown(n.number, false) }

// CutTo drops everything that the host sends to another one. The other direction is not affected.
func (n *Network) CutTo(other *Host) { n.network.setCut(n.number, other.Network.number, true) }

// Partition drops everything between two hosts, in both directions.
func (n *Network) Partition(other *Host) {
	n.network.setCut(n.number, other.Network.number, true)
	n.network.setCut(other.Network.number, n.number, true)
}

// Heal undoes CutTo and Partition, in both directions.
func (n *Network) Heal(other *Host) {
	n.network.setCut(n.number, other.Network.number, false)
	n.network.setCut(other.Network.number, n.number, false)
}

// Block drops, from now on, what the host sends to a port of another one, or of all others if that
// is nil. network is tcp or udp. Nobody is notified, as with most firewalls.
func (n *Network) Block(other *Host, network string, port int) {
	n.host.harness.t.Helper()
	n.network.setRule(n.ruleTo(other, network, port), true)
}

// Unblock undoes Block with the same arguments.
func (n *Network) Unblock(other *Host, network string, port int) {
	n.host.harness.t.Helper()
	n.network.setRule(n.ruleTo(other, network, port), false)
}

func (n *Network) ruleTo(other *Host, network string, port int) rule {
	n.host.harness.t.Helper()
	protocol, known := map[string]byte{"tcp": protocolTCP, "udp": protocolUDP}[network]
	if !known {
		n.host.harness.t.Fatalf("block %s: want tcp or udp", network)
	}
	r := rule{from: n.number, to: anyHost, protocol: protocol, port: uint16(port)}
	if other != nil {
		r.to = other.Network.number
	}
	return r
}

// Dial connects from the host to an address, which must be numeric. The test owns the connection.
func (n *Network) Dial(network, address string) (conn net.Conn, err error) {
	inner := n.RunInside(func() error {
		conn, err = net.DialTimeout(network, address, dialLimit)
		return nil
	})
	return conn, errors.Join(inner, err)
}

// RunInside runs fn on a thread in the host's network. Sockets that fn opens without starting
// goroutines belong to the host.
func (n *Network) RunInside(fn func() error) (err error) {
	first := n.host.Processes.first()
	if first == 0 {
		return errors.New(n.host.Name + " is off")
	}
	onOwnThread(func() {
		if err = setns(first, "net", unix.CLONE_NEWNET); err == nil {
			err = fn()
		}
	})
	return err
}
