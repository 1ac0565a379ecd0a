// Package inventory says what hardware this machine has for trials: processors, memory and GPUs.
//
// Size looks at what is known without asking a driver, so that settings can be read on any machine
// at any time; Read adds the GPUs, and gives up on a driver that does not answer. A Watcher keeps
// looking, so that others get fresh figures without waiting. Limits of the process's own container
// count. GPUs come from NVIDIA's management library (NVML, driver 470 or newer), which is opened at
// run time, or from the program nvidia-smi in builds without cgo. A machine without a driver has no
// GPUs, and that is not an error; for a driver that is there and does not work GPUProblem has the
// reason.
package inventory

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what trials may use of this machine, and what it is.
type Machine struct {
	CPUs   float64 `json:"cpus"`           // cores
	Memory int64   `json:"memory"`         // bytes
	GPUs   []GPU   `json:"gpus,omitempty"` // by index

	Driver     string `json:"driver,omitempty"`      // version of the GPU driver
	CUDA       string `json:"cuda,omitempty"`        // newest CUDA version that the driver serves
	GPUProblem string `json:"gpu_problem,omitempty"` // why the GPUs can't be read though a driver is there

	Groups []Group `json:"groups,omitempty"` // the GPUs by kind: complete even where GPUs is not
	More   bool    `json:"more,omitempty"`   // GPUs is shortened: there are more

	GPUPolicy *GPUPolicy `json:"gpu_policy,omitempty"` // nil when the node does not tell

	Hostname string `json:"hostname,omitempty"`
	OS       string `json:"os,omitempty"` // name and version of the distribution
	Arch     string `json:"arch,omitempty"`
	Kernel   string `json:"kernel,omitempty"`
}

// GPUPolicy is what a node's settings say of its GPUs.
type GPUPolicy struct {
	Reserve int64 `json:"reserve"` // bytes of each that trials do not get
	Share   int   `json:"share"`   // most trials on one at one time
}

// Size gives the processors, the memory and the names of the machine this process runs on. It
// touches no driver and takes no time.
func Size() (Machine, error) {
	memory, err := totalMemory("/proc/meminfo")
	if err != nil {
		return Machine{}, fmt.Errorf("read memory size: %w", err)
	}
	m := Machine{CPUs: float64(runtime.NumCPU()), Memory: memory, Arch: runtime.GOARCH}
	containerLimits("/").apply(&m)
	m.Hostname, m.Kernel = names()
	m.OS = distribution("/etc/os-release")
	return m, nil
}

// silence is what is said of a driver that does not answer.
const silence = "the GPU driver does not answer; look at the kernel's log (dmesg), and restart the machine if it stays so"

// Read looks at the whole machine. A GPU driver that must wake up first takes seconds. One that
// hangs is given up at the end of ctx, which GPUProblem says; the goroutine that asked it stays
// until it answers.
func Read(ctx context.Context) (Machine, error) {
	m, err := Size()
	if err != nil {
		return m, err
	}
	answer := make(chan Machine, 1)
	go func(m Machine) {
		g := newDevices()
		defer g.Close()
		g.Read(ctx, &m)
		answer <- m
	}(m)
	select {
	case full := <-answer:
		return full, nil
	case <-ctx.Done():
		m.GPUProblem = silence
		return m, nil
	}
}

// read looks at the machine, with GPUs from a source that stays open.
func read(ctx context.Context, g Source) (Machine, error) {
	m, err := Size()
	if err == nil {
		g.Read(ctx, &m)
		m.Groups = GroupsOf(m.GPUs)
	}
	return m, err
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

// names gives the host's name and the kernel's release, as uname(2) tells them.
func names() (host, kernel string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "", ""
	}
	return unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Release[:])
}

// distribution reads PRETTY_NAME of os-release(5). Without it, it is what Go calls the system.
func distribution(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return runtime.GOOS
}
