// Package inventory says what hardware this machine has for trials: processors and memory.
package inventory

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine is what trials may use of this machine.
type Machine struct {
	CPUs   float64 // cores
	Memory int64   // bytes
}

// Read looks at the machine this process runs on. Limits of the process's own container count.
func Read() (Machine, error) {
	memory, err := totalMemory("/proc/meminfo")
	if err != nil {
		return Machine{}, fmt.Errorf("read memory size: %w", err)
	}
	return Machine{CPUs: float64(runtime.NumCPU()), Memory: memory}, nil
}

// totalMemory reads the line `MemTotal:  1234 kB` (proc_meminfo(5)).
func totalMemory(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "MemTotal:") {
			continue
		}
		var kib int64
		if _, err := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); err != nil {
			return 0, fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("%s has no line MemTotal", path)
}
