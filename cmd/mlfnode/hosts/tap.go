package hosts

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// tunDevice makes network interfaces whose other end is a file.
const tunDevice = "/dev/net/tun"

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
