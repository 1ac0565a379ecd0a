package hosts

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockCode replaces clock_gettime in a process's vDSO. A Go program asks for the time in the vDSO,
// a page of code that the kernel maps into every process (vdso(7)), without a system call. Neither
// a preloaded library nor a time namespace, which has no wall clock, can therefore change the time
// that it sees. But each process may have a modified copy of that page: its clock_gettime becomes
// the following code, which asks the kernel and adds a number of seconds.
//
//	mov  eax, 228          clock_gettime(edi, rsi)
//	syscall
//	test eax, eax
//	jnz  done
//	test edi, edi          CLOCK_REALTIME is 0
//	jnz  done
//	add  qword [rsi], skew
//	done: ret
var clockCode = []byte{0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x75, 0x0b, 0x85, 0xff, 0x75, 0x07, 0x48, 0x81,
	0x06, 0, 0, 0, 0, 0xc3}

const skewOffset = 18

// codeRange is the address range of a function in a process.
type codeRange struct{ start, end uint64 }

// setClock sets the wall clock of a running process ahead by the whole seconds of d.
func setClock(pid int, d time.Duration) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the clock of a process on %s can't be set", runtime.GOARCH)
	}
	fn, err := clockFunction(pid)
	if err != nil {
		return err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	text := bytes.Clone(clockCode)
	binary.LittleEndian.PutUint32(text[skewOffset:], uint32(int32(d/time.Second)))
	return whilePaused(pid, fn, func() error {
		_, err := mem.WriteAt(text, int64(fn.start))
		return err
	})
}

// whilePaused stops a process outside a function, runs fn, and then lets the process continue
// unless it was already stopped.
func whilePaused(pid int, fn codeRange, change func() error) error {
	paused := stopped(pid, codeRange{})
	const tries = 1000
	for range tries {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			return err
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
		ok := stopped(pid, fn)
		var err error
		if ok {
			err = change()
		}
		if !paused {
			_ = unix.Kill(pid, unix.SIGCONT) // it still exists, since it is stopped
		}
		if ok {
			return err
		}
	}
	return fmt.Errorf("process %d was never stopped outside of its clock", pid)
}

// stopped reports whether every thread of a process is stopped by a signal, and none of them inside
// the function.
func stopped(pid int, fn codeRange) bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is valid
	for _, task := range tasks {
		stat, _ := os.ReadFile(filepath.Join(task, "stat"))
		if _, rest, ok := strings.Cut(string(stat), ") "); !ok || !strings.HasPrefix(rest, "T") {
			return false
		}
		at, err := programCounter(task)
		if err != nil || at >= fn.start && at < fn.end {
			return false
		}
	}
	return len(tasks) > 0
}

// programCounter parses the last field of /proc/<pid>/task/<tid>/syscall, see proc(5).
func programCounter(task string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(task, "syscall"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) == 0 {
		return 0, fmt.Errorf("%s says nothing", task)
	}
	return strconv.ParseUint(strings.TrimPrefix(fields[len(fields)-1], "0x"), 16, 64)
}

// clockFunction finds clock_gettime in a process's vDSO. All processes have the same function, each
// at its own address.
func clockFunction(pid int) (codeRange, error) {
	from, to, err := vdso(os.Getpid())
	if err != nil {
		return codeRange{}, err
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return codeRange{}, err
	}
	defer mem.Close()
	image := make([]byte, to-from)
	if _, err := mem.ReadAt(image, int64(from)); err != nil {
		return codeRange{}, fmt.Errorf("read the vDSO: %w", err)
	}
	start, size, err := symbol(image, "__vdso_clock_gettime")
	if err != nil {
		return codeRange{}, err
	}
	base, _, err := vdso(pid)
	return codeRange{base + start, base + start + size}, err
}

func symbol(image []byte, name string) (start, size uint64, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, 0, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, 0, fmt.Errorf("read the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name == name && s.Size >= uint64(len(clockCode)) {
			return s.Value, s.Size, nil
		}
	}
	return 0, 0, fmt.Errorf("the vDSO has no %s of %d bytes", name, len(clockCode))
}

// vdso returns the address range of a process's vDSO.
func vdso(pid int) (from, to uint64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasSuffix(lines.Text(), "[vdso]") {
			_, err := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to)
			return from, to, err
		}
	}
	return 0, 0, fmt.Errorf("process %d has no vDSO", pid)
}
