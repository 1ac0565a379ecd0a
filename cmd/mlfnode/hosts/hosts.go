// Package hosts provides tests with several hosts on one machine, on which to run, and break, the
// real program.
//
// A Host is a set of kernel namespaces: it has its own processes, network interface, address, host
// name, /etc/hosts and home. It shares the machine's files, so that a test can read what a host
// wrote, and a trial on any host can report to the test through a file. The hosts of a Harness are
// connected by a switch in the test's own process (see virtualSwitch), which loses, delays,
// duplicates or refuses frames as the test demands.
//
// Nothing in a harness has a name outside the test's process: no bridge, no named namespace, no
// firewall rule. When that process ends, for whatever reason, the kernel kills the hosts with all
// their processes, and everything else disappears with them. Harnesses therefore never interfere
// with each other, and a killed test leaves only files in the folder for temporary files. The only
// exception is small disks, see Options.
package hosts

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"
)

// Options describe the hosts of a harness.
type Options struct {
	Program string   // the mlfnode binary under test
	Env     []string // additional environment variables of everything that runs on the hosts, KEY=value
	Disk    string   // size of a separate disk for each host's state, as in "64m"; empty uses the machine's disk
	Lossy   bool     // that disk behaves like a real one: a power cut loses what was not synced
	Debian  bool     // the host's own name resolves to 127.0.1.1, as Debian's installer sets it up
}

// Harness is a network with hosts.
type Harness struct {
	Hosts []*Host // host1 is Hosts[0]
	Dir   string  // a folder that all hosts see, removed at the end of the test

	t       testing.TB
	options Options
	network *virtualSwitch
}

// New makes n hosts, host1 to hostN at 10.77.0.1 to 10.77.0.N, and removes them when the test ends.
// Without root the test is skipped, or fails if CI=true.
func New(t testing.TB, n int, o Options) *Harness {
	t.Helper()
	require(t, o)
	s := &Harness{t: t, options: o, network: newVirtualSwitch()}
	s.makeDir()
	t.Cleanup(s.close)
	removeDeadDisks(t)
	for i := range n {
		s.Hosts = append(s.Hosts, newHost(s, fmt.Sprintf("host%d", i+1), i))
	}
	for _, h := range s.Hosts {
		s.prepareHost(h)
		h.Boot()
	}
	return s
}

// makeDir makes the folder. Its name is short, whatever the name of the test is: the folder
// contains sockets, and the length of their paths is limited.
func (hs *Harness) makeDir() {
	hs.t.Helper()
	dir, err := os.MkdirTemp("", "hosts-")
	if err != nil {
		hs.t.Fatal(err)
	}
	hs.Dir = dir
	hs.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			hs.t.Errorf("remove the folder of the harness: %v", err)
		}
	})
}

// require skips the test where the machine can't run a harness.
func require(t testing.TB, o Options) {
	t.Helper()
	gridtest.Root(t, "test hosts in namespaces")
	for _, name := range []string{"ip", "mount", "sh"} {
		gridtest.Program(t, name)
	}
	gridtest.Device(t, tunDevice)
	if o.Lossy {
		gridtest.Program(t, "mkfs.ext4")
		gridtest.Device(t, "/dev/loop-control")
	}
}

// prepareHost makes the files of a host that survive its reboots.
func (hs *Harness) prepareHost(h *Host) {
	hs.t.Helper()
	for _, dir := range []string{h.Home, h.etc(), h.StateDir(), h.temp()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			hs.t.Fatal(err)
		}
	}
	if hs.options.Disk != "" {
		h.Disk.create()
		if err := os.MkdirAll(h.StateDir(), 0o700); err != nil {
			hs.t.Fatal(err)
		}
	}
	err := errors.Join(h.writeEtc("hosts", hs.names(h)),
		h.writeEtc("resolv.conf", "")) // no name server: a look-up of an unknown name fails at once
	if err != nil {
		hs.t.Fatal(err)
	}
}

// names returns the /etc/hosts of a host.
func (hs *Harness) names(of *Host) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range hs.Hosts {
		addr := h.Addr
		if h == of && hs.options.Debian {
			addr = "127.0.1.1"
		}
		fmt.Fprintf(&b, "%s %s\n", addr, h.Name)
	}
	return b.String()
}

// AddHost adds a host to those that New made: it knows all names and has an address on the same
// network.
func (hs *Harness) AddHost(name string) *Host {
	hs.t.Helper()
	h := newHost(hs, name, len(hs.Hosts))
	hs.Hosts = append(hs.Hosts, h)
	hs.prepareHost(h)
	h.Boot()
	return h
}

// Host returns the host with this name.
func (hs *Harness) Host(name string) *Host {
	hs.t.Helper()
	for _, h := range hs.Hosts {
		if h.Name == name {
			return h
		}
	}
	hs.t.Fatalf("there is no host %s", name)
	return nil
}

// SetLinkConditions determines what happens to the frames of all hosts from now on.
func (hs *Harness) SetLinkConditions(c LinkConditions) {
	for _, h := range hs.Hosts {
		h.Network.SetConditions(c)
	}
}

// close powers all hosts off. The logs of programs are kept until then, so that a failed test can
// show them.
func (hs *Harness) close() {
	for _, h := range hs.Hosts {
		if hs.t.Failed() {
			h.Processes.showLogs()
		}
		h.PowerCut()
	}
	hs.network.close()
	for _, h := range hs.Hosts {
		h.Disk.unmount()
	}
}
