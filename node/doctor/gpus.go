package doctor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// GPUs is the driver's report on this host's GPUs.
type GPUs struct {
	Driver  string // version; empty without a driver
	CUDA    string
	Problem string // why the driver does not report its GPUs
	Devices []GPU
}

// GPU is one GPU of a host.
type GPU struct {
	Name       string
	Problem    string // why it can't be used
	Recovery   string // the recovery action that the driver asks for; empty for none
	Mode       string // exclusive or prohibited; empty for the default
	Persistent bool   // the driver stays loaded between programs
	MIG        bool   // it is divided into instances
	Instances  int
}

// checkGPUs checks the driver and the settings that decide how trials can use the GPUs.
func checkGPUs(g *GPUs, root string) []Finding {
	const cure = "nvidia-smi must work first: install a driver that fits the kernel, or reboot after an update of it"
	switch {
	case g.Problem != "":
		return []Finding{bad("gpu driver", g.Problem, cure)}
	case g.Driver == "" && len(g.Devices) == 0:
		if n := pciGPUs(root); n > 0 {
			return []Finding{warn("gpu driver",
				fmt.Sprintf(
					"no NVIDIA driver answers, though %d of its GPUs are in this machine: trials can't use them", n),
				cure)}
		}
		return []Finding{fine("gpu driver", "there is no NVIDIA driver, so this node has no GPUs")}
	case len(g.Devices) == 0:
		return []Finding{fine("gpu driver", "version "+g.Driver+", with no GPU")}
	}
	found := []Finding{fine("gpu driver",
		fmt.Sprintf("version %s, CUDA %s, %d GPUs", g.Driver, g.CUDA, len(g.Devices)))}
	found = append(found, g.unusable()...)
	if on := g.list(func(d *GPU) bool { return !d.Persistent && d.Problem == "" }); on != "" {
		found = append(found, warn("gpu persistence",
			"persistence mode is off for "+on+": each program waits seconds for the driver to load",
			"systemctl enable --now nvidia-persistenced, or as root: nvidia-smi -pm 1"))
	}
	if on := g.list(func(d *GPU) bool { return d.Mode == "exclusive" }); on != "" {
		found = append(found, warn("gpu mode", on+" is in exclusive mode: trials that ask for a share can't use it",
			"as root: nvidia-smi -c DEFAULT"))
	}
	if on := g.list(func(d *GPU) bool { return d.Mode == "prohibited" }); on != "" {
		found = append(found, bad("gpu mode", on+" lets no program compute", "as root: nvidia-smi -c DEFAULT"))
	}
	if on := g.list(func(d *GPU) bool { return d.MIG && d.Instances == 0 }); on != "" {
		found = append(found, warn("gpu mig", on+" is in MIG mode without any instance: no trial can use it",
			"as root: nvidia-smi mig -cgi PROFILE -C, or nvidia-smi -mig 0"))
	} else if on := g.list(func(d *GPU) bool { return d.MIG }); on != "" {
		found = append(found, fine("gpu mig", on+" is divided into instances; trials ask for one with gpu_profile"))
	}
	if isRunning(root, "nvidia-cuda-mps") {
		found = append(found, warn("gpu mps",
			"an MPS daemon runs: a trial that fails may take down others on its GPU, and one user at a time can use it",
			"echo quit | nvidia-cuda-mps-control, unless you want it"))
	}
	return found
}

// unusable reports the GPUs that can't be used.
func (g *GPUs) unusable() []Finding {
	var found []Finding
	for i := range g.Devices {
		d := &g.Devices[i]
		switch {
		case d.Problem != "":
			found = append(found, bad("gpu health", d.Problem,
				"look at the kernel's log (dmesg | grep -i xid), and restart the machine"))
		case d.Recovery != "":
			found = append(found, bad("gpu health", fmt.Sprintf("the driver says that GPU %d %s", i, d.Recovery),
				"do so; until then no trial starts on it"))
		}
	}
	return found
}

// list names the matching GPUs, as in "GPU 0, 1"; empty for none.
func (g *GPUs) list(match func(*GPU) bool) string {
	var all []string
	for i := range g.Devices {
		if match(&g.Devices[i]) {
			all = append(all, fmt.Sprint(i))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "GPU " + strings.Join(all, ", ")
}

// pciGPUs counts NVIDIA's display and compute devices on the PCI bus, which lists them without a
// driver, too.
func pciGPUs(root string) int {
	n := 0
	vendors, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*/vendor")) // the pattern is well-formed
	for _, path := range vendors {
		vendor, err := os.ReadFile(path)
		class, err2 := os.ReadFile(filepath.Join(filepath.Dir(path), "class"))
		if err == nil && err2 == nil && strings.TrimSpace(string(vendor)) == "0x10de" &&
			bytes.HasPrefix(class, []byte("0x03")) {
			n++
		}
	}
	return n
}

// isRunning reports whether a program runs whose name has this prefix. The kernel keeps the first
// 15 bytes of a name.
func isRunning(root, prefix string) bool {
	names, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*/comm")) // the pattern is well-formed
	for _, path := range names {
		if comm, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(comm), prefix) {
			return true
		}
	}
	return false
}
