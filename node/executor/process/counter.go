package process

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// counter is an open kernel file that is read repeatedly.
type counter int

const absent counter = -1

// openCounter opens a file, or returns absent if this machine lacks it.
func openCounter(dir, name string, flag int) counter {
	fd, err := unix.Open(filepath.Join(dir, name), flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return absent
	}
	return counter(fd)
}

// read reads the file from its start into buf, and returns nothing if it is absent.
func (f counter) read(buf []byte) []byte {
	n, err := unix.Pread(int(f), buf, 0)
	if err != nil {
		return nil
	}
	return buf[:n]
}

func (f *counter) close() {
	if *f != absent {
		unix.Close(int(*f))
		*f = absent
	}
}

// leadingNumber parses the decimal number at the start of b.
func leadingNumber(b []byte) (n int64) {
	for _, d := range b {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int64(d-'0')
	}
	return n
}
