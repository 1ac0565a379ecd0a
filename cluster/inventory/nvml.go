//go:build cgo

package inventory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"golang.org/x/sys/unix"
)

// devices reads GPUs through NVML. The library stays open between readings, because a driver
// without persistence mode would otherwise stop and start its GPUs each time. A devices must not be
// used concurrently.
type devices struct {
	lib    nvml.Interface
	smi    smi // used if the library is missing, as in some containers
	open   bool
	groups map[string]int // group of each GPU by UUID, which does not change while the driver runs
	faults faultWatch
}

func newDevices() Source { return &devices{lib: nvml.New()} }

// Close implements Source.
func (d *devices) Close() {
	d.faults.close()
	if d.open {
		d.lib.Shutdown()
		d.open, d.groups = false, nil
	}
}

// Read implements Source. It runs nvidia-smi if the library is missing.
func (d *devices) Read(ctx context.Context, m *Machine) {
	err := d.read(m)
	switch {
	case err == nil:
	case errors.Is(err, nvml.ERROR_LIBRARY_NOT_FOUND):
		d.smi.Read(ctx, m)
	case errors.Is(err, nvml.ERROR_DRIVER_NOT_LOADED):
		m.GPUs, m.GPUProblem = nil,
			"the NVIDIA driver is installed but not loaded; load it (modprobe nvidia) or restart the machine"
	case errors.Is(err, nvml.ERROR_LIB_RM_VERSION_MISMATCH):
		m.GPUs, m.GPUProblem = nil, mismatch
	default:
		m.GPUs, m.GPUProblem = nil, err.Error()
	}
	if err != nil {
		d.Close() // the driver may have been replaced, so the next reading starts over
	}
}

func (d *devices) start() error {
	if !d.open {
		if ret := d.lib.Init(); ret != nvml.SUCCESS {
			return fmt.Errorf("start NVML: %w", ret)
		}
		d.open = true
	}
	return nil
}

func (d *devices) read(m *Machine) error {
	if err := d.start(); err != nil {
		return err
	}
	if v, ret := d.lib.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		m.Driver = v
	}
	if v, ret := d.lib.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		m.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	count, ret := d.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("count GPUs: %w", ret)
	}
	handles := make([]nvml.Device, 0, count)
	for i := range count {
		g, device := d.gpu(i)
		m.GPUs, handles = append(m.GPUs, g), append(handles, device)
	}
	if d.groups == nil {
		d.groups = connections(m.GPUs, handles)
	}
	for i := range m.GPUs {
		if group, ok := d.groups[m.GPUs[i].UUID]; ok {
			m.GPUs[i].Group = group
		}
	}
	return nil
}

// gpu reads one GPU; a value that it lacks stays Unknown. A GPU that fell off the bus is included
// with the reason and has no handle.
func (d *devices) gpu(index int) (GPU, nvml.Device) {
	g := GPU{
		Index: index, Utilization: Unknown, Temperature: Unknown, Power: Unknown, Processes: Unknown,
		Group: Unknown, NUMA: Unknown, Recovery: RecoveryUnknown,
	}
	device, ret := d.lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		g.Problem = fmt.Sprintf("the driver does not give access to GPU %d: %v", index, ret)
		return g, nil
	}
	if g.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		g.Problem = fmt.Sprintf("the driver does not report the UUID of GPU %d: %v", index, ret)
	}
	g.Name, _ = device.GetName()
	if memory, ret := device.GetMemoryInfo(); ret == nvml.SUCCESS {
		g.Memory, g.MemoryUsed = int64(memory.Total), int64(memory.Used)
	} else if ret == nvml.ERROR_GPU_IS_LOST {
		g.Problem = fmt.Sprintf("GPU %d is lost (it fell off the bus); restart the machine", index)
		return g, nil
	}
	describe(&g, device)
	if rates, ret := device.GetUtilizationRates(); ret == nvml.SUCCESS {
		g.Utilization = int(rates.Gpu)
	}
	if degrees, ret := device.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
		g.Temperature = int(degrees)
	}
	if milliwatts, ret := device.GetPowerUsage(); ret == nvml.SUCCESS {
		g.Power = int(milliwatts / 1000)
	}
	if processes, ret := device.GetComputeRunningProcesses(); ret == nvml.SUCCESS {
		g.Processes = len(processes)
	}
	return g, device
}

// describe reads the properties that seldom change.
func describe(g *GPU, device nvml.Device) {
	if mode, _, ret := device.GetMigMode(); ret == nvml.SUCCESS {
		g.MIG = mode == nvml.DEVICE_MIG_ENABLE
	}
	if g.MIG {
		eachInstance(device, func(in nvml.Device) { g.Instances = append(g.Instances, instance(in)) })
	}
	if major, minor, ret := device.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		g.Capability = fmt.Sprintf("%d.%d", major, minor)
	}
	if mode, ret := device.GetComputeMode(); ret == nvml.SUCCESS {
		switch mode {
		case nvml.COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.COMPUTEMODE_EXCLUSIVE_THREAD:
			g.Mode = Exclusive
		case nvml.COMPUTEMODE_PROHIBITED:
			g.Mode = Prohibited
		}
	}
	if state, ret := device.GetPersistenceMode(); ret == nvml.SUCCESS {
		g.Persistence = state == nvml.FEATURE_ENABLED
	}
	if bus := busOf(device); bus != "" {
		g.NUMA = numaNode("/", bus)
	}
	values := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if ret := device.GetFieldValues(values); ret == nvml.SUCCESS && nvml.Return(values[0].NvmlReturn) == nvml.SUCCESS {
		g.Recovery = Recovery(binary.NativeEndian.Uint32(values[0].Value[:]))
	}
}

// eachInstance visits the MIG devices of a GPU, whose indexes can have gaps.
func eachInstance(device nvml.Device, visit func(nvml.Device)) {
	count, ret := device.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return
	}
	for i := range count {
		if in, ret := device.GetMigDeviceHandleByIndex(i); ret == nvml.SUCCESS {
			visit(in)
		}
	}
}

// instance reads a MIG device. Its name ends in its profile: "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
func instance(device nvml.Device) Instance {
	in := Instance{GPUInstance: Unknown, ComputeInstance: Unknown}
	in.UUID, _ = device.GetUUID()
	name, _ := device.GetName()
	if _, profile, ok := strings.Cut(name, "MIG "); ok {
		in.Profile = profile
	}
	if memory, ret := device.GetMemoryInfo(); ret == nvml.SUCCESS {
		in.Memory, in.MemoryUsed = int64(memory.Total), int64(memory.Used)
	}
	if id, ret := device.GetGpuInstanceId(); ret == nvml.SUCCESS {
		in.GPUInstance = id
	}
	if id, ret := device.GetComputeInstanceId(); ret == nvml.SUCCESS {
		in.ComputeInstance = id
	}
	return in
}

// busOf returns the PCI address of a GPU, for example 00000000:07:00.0.
func busOf(device nvml.Device) string {
	pci, ret := device.GetPciInfo()
	if ret != nvml.SUCCESS {
		return ""
	}
	return busText(pci)
}

func busText(pci nvml.PciInfo) string {
	text := make([]byte, len(pci.BusId))
	for i, c := range pci.BusId {
		text[i] = byte(c)
	}
	return strings.ToLower(unix.ByteSliceToString(text))
}

// connections returns the groups of directly connected GPUs: by NVLink, including switches, or, if
// no GPU has links, by a common host bridge. The number of a group is the index of its first GPU.
func connections(gpus []GPU, handles []nvml.Device) map[string]int {
	u := union{}
	linked := false
	for i, device := range handles {
		if device == nil {
			continue
		}
		for link := range nvml.NVLINK_MAX_LINKS {
			state, ret := device.GetNvLinkState(link)
			if ret == nvml.ERROR_INVALID_ARGUMENT || ret == nvml.ERROR_NOT_SUPPORTED {
				break // this link does not exist, and neither do later ones
			}
			if ret != nvml.SUCCESS || state != nvml.FEATURE_ENABLED {
				continue
			}
			if remote, ret := device.GetNvLinkRemotePciInfo(link); ret == nvml.SUCCESS {
				linked = true
				u.join(busOf(handles[i]), busText(remote))
			}
		}
	}
	for i := range handles {
		for j := range i {
			if linked || handles[i] == nil || handles[j] == nil {
				continue
			}
			if level, ret := handles[i].GetTopologyCommonAncestor(handles[j]); ret == nvml.SUCCESS &&
				level <= nvml.TOPOLOGY_HOSTBRIDGE {
				u.join(busOf(handles[i]), busOf(handles[j]))
			}
		}
	}
	groups, first := map[string]int{}, map[string]int{}
	for i, device := range handles {
		if device == nil || gpus[i].UUID == "" {
			continue
		}
		root := u.find(busOf(device))
		if _, ok := first[root]; !ok {
			first[root] = gpus[i].Index
		}
		groups[gpus[i].UUID] = first[root]
	}
	return groups
}

// union records which PCI addresses belong together.
type union map[string]string

func (u union) find(bus string) string {
	for u[bus] != "" {
		bus = u[bus]
	}
	return bus
}

func (u union) join(a, b string) {
	if a, b = u.find(a), u.find(b); a != b {
		u[a] = b
	}
}
