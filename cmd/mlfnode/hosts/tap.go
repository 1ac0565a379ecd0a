package hosts

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// tunDevice makes network interfaces whose other end is a file.
const tunDevice = "/dev/net/tun"

// connectTap gives the host its interface, eth0, and connects the other end to the switch.
func (h *Host) connectTap(p *power) error {
	var tap *os.File
	err := p.call(func() (err error) {
		tap, err = openTap("eth0")
		return err
	})
	if err != nil {
		return err
	}
	h.harness.network.plug(h.number, tap)
	for _, args := range [][]string{
		{"link", "set", "eth0", "address", macOf(h.number).String()},
		{"addr", "add", h.Addr + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"route", "add", "default", "dev", "eth0"}, // other networks are unreachable after a while, as on most machines
	} {
		if r := h.Run(exec.Command("ip", args...)); r.Code != 0 {
			return fmt.Errorf("ip %v: %s", args, r.Stderr)
		}
	}
	return nil
}

// openTap makes an interface in the calling thread's network namespace. It disappears when the file
// is closed.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was written to it
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), tunDevice), nil
}
