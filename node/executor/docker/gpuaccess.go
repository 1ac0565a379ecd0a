package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"gopkg.in/yaml.v3"

	"mlfnode/grid"
)

// How a task may ask for GPUs in its container. GPUsAuto, which is also "", uses the first of the
// others that the engine supports.
const (
	GPUsAuto    = "auto"
	GPUsCDI     = "cdi"     // by the names of a CDI specification
	GPUsRequest = "request" // by a device request, as `docker run --gpus` makes it, or by the runtime nvidia
	GPUsNone    = "none"
)

// cdiKind is the vendor and class in the names of NVIDIA's CDI devices.
const cdiKind = "nvidia.com/gpu="

// gpuAccess is how an engine can give GPUs to a container.
type gpuAccess struct {
	docker      bool     // it accepts device requests for the driver nvidia; Podman's service ignores them
	runtime     bool     // the runtime nvidia is registered
	cdi         bool     // it accepts CDI devices
	discovered  []string // CDI names that the engine reports; empty if it reports none
	specDirs    []string
	beforeCDI07 bool   // it does not understand specifications of version 0.7.0 and newer
	procDir     string // /proc
}

// newGPUAccess reads an engine's description of itself. podman is the version of Podman, empty for
// Docker.
func newGPUAccess(info *system.Info, podman string) gpuAccess {
	g := gpuAccess{docker: podman == "", specDirs: info.CDISpecDirs, procDir: "/proc"}
	_, g.runtime = info.Runtimes["nvidia"]
	g.cdi = len(info.CDISpecDirs) > 0 || podman != "" && atLeast(podman, 5, 4)
	if g.cdi && len(g.specDirs) == 0 {
		g.specDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
	g.beforeCDI07 = g.docker && !atLeast(info.ServerVersion, 26, 1)
	for _, d := range info.DiscoveredDevices {
		if d.Source == "cdi" && strings.HasPrefix(d.ID, cdiKind) {
			g.discovered = append(g.discovered, d.ID)
		}
	}
	return g
}

// atLeast compares the first two numbers of a version like 5.4.1-dev.
func atLeast(version string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(version, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// attach adds the GPUs with these UUIDs to a container's configuration. If the engine can't give
// them, the error is of class engine and says what to do.
func (g gpuAccess) attach(mode string, uuids []string, c *container.Config, h *container.HostConfig) error {
	// NVIDIA's images request all GPUs, which the runtime nvidia would add to those requested here.
	hide := func() { c.Env = grid.MergeEnviron(c.Env, []string{"NVIDIA_VISIBLE_DEVICES=void"}) }
	if len(uuids) == 0 || mode == GPUsNone {
		hide()
		return nil
	}
	var cdiErr error
	if mode != GPUsRequest {
		var names []string
		if names, cdiErr = g.cdiNames(uuids); cdiErr == nil {
			hide()
			h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: names})
			return nil
		}
	}
	switch {
	case mode == GPUsCDI:
		return &EngineError{Class: grid.ClassEngine, Reason: fmt.Sprintf(
			"the engine can't give GPUs by CDI: %v; try: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
			cdiErr)}
	case g.docker:
		h.DeviceRequests = append(h.DeviceRequests, container.DeviceRequest{
			Driver: "nvidia", DeviceIDs: uuids, Capabilities: [][]string{{"gpu", "compute", "utility"}},
		})
	case g.runtime:
		h.Runtime = "nvidia"
		c.Env = grid.MergeEnviron(c.Env, []string{
			"NVIDIA_VISIBLE_DEVICES=" + strings.Join(uuids, ","), "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
		})
	default:
		return &EngineError{Class: grid.ClassEngine,
			Reason: fmt.Sprintf("the engine can't give GPUs (%v); %s", cdiErr, gpuRemedy)}
	}
	return nil
}

// gpuRemedy enables an engine to give GPUs.
const gpuRemedy = "install nvidia-container-toolkit, then run nvidia-ctk runtime configure, or mlfnode gpu-setup for this machine"

// cdiNames returns the full CDI names of devices. Specifications name devices by UUID or, if they
// are older, by index; the latter are identified by their device file.
func (g gpuAccess) cdiNames(uuids []string) ([]string, error) {
	if !g.cdi {
		return nil, errors.New("it does not take CDI devices")
	}
	devices, err := readCDI(g.specDirs, g.beforeCDI07)
	if err != nil {
		return nil, err
	}
	minors := g.minors()
	var names []string
	for _, uuid := range uuids {
		name := ""
		switch minor, known := minors[uuid]; {
		case slices.Contains(g.discovered, cdiKind+uuid):
			name = uuid
		case devices[uuid] != nil && len(g.discovered) == 0:
			name = uuid
		case known:
			name = deviceByNode(devices, fmt.Sprintf("/dev/nvidia%d", minor))
		}
		if name == "" || len(g.discovered) > 0 && !slices.Contains(g.discovered, cdiKind+name) {
			return nil, fmt.Errorf("no CDI specification in %s names %s", strings.Join(g.specDirs, ", "), uuid)
		}
		names = append(names, cdiKind+name)
	}
	return names, nil
}

// deviceByNode returns the device whose only GPU device file is this one.
func deviceByNode(devices map[string][]string, file string) string {
	var found []string
	for name, nodes := range devices {
		gpus := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool {
			_, err := strconv.Atoi(strings.TrimPrefix(n, "/dev/nvidia"))
			return err != nil
		})
		if len(gpus) == 1 && gpus[0] == file && len(nodes) < 8 && !strings.Contains(name, ":") {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

// readCDI returns the device files of NVIDIA's CDI devices by name. A specification in a later
// folder takes precedence, as the CDI defines it. before07 skips the specifications that Docker
// before 26.1 does not understand.
func readCDI(dirs []string, before07 bool) (map[string][]string, error) {
	devices := map[string][]string{}
	var problems []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
		for _, f := range entries {
			if ext := filepath.Ext(f.Name()); ext != ".yaml" && ext != ".json" {
				continue
			}
			var spec struct {
				Version string `yaml:"cdiVersion"`
				Kind    string `yaml:"kind"`
				Devices []struct {
					Name  string `yaml:"name"`
					Edits struct {
						Nodes []struct {
							Path string `yaml:"path"`
						} `yaml:"deviceNodes"`
					} `yaml:"containerEdits"`
				} `yaml:"devices"`
			}
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err == nil {
				err = yaml.Unmarshal(b, &spec) // JSON is YAML
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("read the CDI specification %s: %w", f.Name(), err))
				continue
			}
			if spec.Kind+"=" != cdiKind || before07 && atLeast(spec.Version, 0, 7) {
				continue
			}
			for _, d := range spec.Devices {
				nodes := []string{}
				for _, n := range d.Edits.Nodes {
					nodes = append(nodes, n.Path)
				}
				devices[d.Name] = nodes
			}
		}
	}
	if len(devices) == 0 {
		return nil, errors.Join(append(problems,
			fmt.Errorf("no CDI specification of NVIDIA in %s", strings.Join(dirs, ", ")))...)
	}
	return devices, nil
}

// minors returns the minor number of each GPU's device file, as the driver lists it in
// /proc/driver/nvidia/gpus/*/information.
func (g gpuAccess) minors() map[string]int {
	found := map[string]int{}
	files, _ := filepath.Glob(filepath.Join(g.procDir, "driver", "nvidia", "gpus", "*", "information"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		uuid, minor := "", -1
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
			case "GPU UUID":
				uuid = value
			case "Device Minor":
				minor, _ = strconv.Atoi(value)
			}
		}
		if uuid != "" && minor >= 0 {
			found[uuid] = minor
		}
	}
	return found
}

// missingFrom lists the GPUs that a container should have and does not: some engines silently start
// a container without them. GPUs that this machine's driver does not list and containers whose /dev
// can't be read are not checked.
func (g gpuAccess) missingFrom(pid int, uuids []string) []string {
	minors := g.minors()
	dev := filepath.Join(g.procDir, strconv.Itoa(pid), "root", "dev")
	var missing []string
	for _, uuid := range uuids {
		file := "nvidia-caps"
		if !strings.HasPrefix(uuid, "MIG-") {
			minor, known := minors[uuid]
			if !known {
				continue
			}
			file = fmt.Sprintf("nvidia%d", minor)
		}
		if _, err := os.Lstat(filepath.Join(dev, file)); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Lstat(dev); err == nil {
				missing = append(missing, uuid)
			}
		}
	}
	return missing
}
