// Package inventory determines the hardware that this machine has for trials: processors, memory
// and GPUs.
//
// Size returns what is known without asking a driver, so that settings can be read on any machine
// at any time. Read adds the GPUs, and gives up on a driver that does not answer. A Watcher reads
// repeatedly, so that others get current figures without waiting. All respect the limits of the
// process's container.
//
// GPUs are read through NVIDIA's management library (NVML, driver 470 or newer), which is loaded at
// run time, or through the program nvidia-smi in builds without cgo. A machine without a driver has
// no GPUs, which is not an error; if a driver is present but does not work, GPUProblem holds the
// reason.
package inventory

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes this machine, and how much of it trials may use.
type Machine struct {
	CPUs   float64 `json:"cpus"`           // cores
	Memory int64   `json:"memory"`         // bytes
	GPUs   []GPU   `json:"gpus,omitempty"` // by index

	Driver     string `json:"driver,omitempty"`      // version of the GPU driver
	CUDA       string `json:"cuda,omitempty"`        // newest CUDA version that the driver supports
	GPUProblem string `json:"gpu_problem,omitempty"` // why the GPUs cannot be read although there is a driver

	Groups []Group `json:"groups,omitempty"` // the GPUs by kind: complete even if GPUs is not
	More   bool    `json:"more,omitempty"`   // GPUs is truncated

	GPUPolicy *GPUPolicy `json:"gpu_policy,omitempty"` // nil if the node does not report it

	Hostname string `json:"hostname,omitempty"`
	OS       string `json:"os,omitempty"` // name and version of the distribution
	Arch     string `json:"arch,omitempty"`
	Kernel   string `json:"kernel,omitempty"`
}

// GPUPolicy holds a node's settings for its GPUs.
type GPUPolicy struct {
	Reserve int64 `json:"reserve"` // bytes of each GPU that are not available to trials
	Share   int   `json:"share"`   // maximum number of concurrent trials on one GPU
}

// Size returns the processors, the memory and the names of this machine. It does not access any
// driver and returns quickly.
func Size() (Machine, error) {
	memory, err := totalMemory("/proc/meminfo")
	if err != nil {
		return Machine{}, fmt.Errorf("read memory size: %w", err)
	}
	m := Machine{CPUs: float64(runtime.NumCPU()), Memory: memory, Arch: runtime.GOARCH}
	containerLimits("/").apply(&m)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Hostname, m.Kernel = unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Release[:])
	}
	m.OS = distribution("/etc/os-release")
	return m, nil
}

// silence is the message about a driver that does not answer.
const silence = "the GPU driver does not answer; look at the kernel's log (dmesg), and restart the machine if it stays so"

// Read reads the whole machine. A GPU driver that must first be initialised takes seconds. Read
// gives up on one that hangs when ctx ends, and sets GPUProblem; the goroutine that called the
// driver remains until the driver answers.
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

// read reads the machine, with GPUs from a source that stays open.
func read(ctx context.Context, g Source) (Machine, error) {
	m, err := Size()
	if err == nil {
		g.Read(ctx, &m)
		m.Groups = GroupsOf(m.GPUs)
	}
	return m, err
}

// totalMemory returns the size of the memory, from a file like /proc/meminfo.
func totalMemory(path string) (int64, error) {
	sizes, err := meminfo(path)
	if err != nil {
		return 0, err
	}
	total, ok := sizes["MemTotal"]
	if !ok {
		return 0, fmt.Errorf("%s has no line MemTotal", path)
	}
	return total, nil
}

// distribution returns PRETTY_NAME from os-release(5), or else runtime.GOOS.
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
