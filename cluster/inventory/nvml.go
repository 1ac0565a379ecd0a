//go:build cgo

package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// devices reads GPUs through NVML. The library stays open between two reads: a driver without persistence mode would stop and
// start its GPUs each time. A devices belongs to one goroutine.
type devices struct {
	lib  nvml.Interface
	open bool
}

func newDevices() *devices { return &devices{lib: nvml.New()} }

func (d *devices) close() {
	if d.open {
		d.lib.Shutdown()
		d.open = false
	}
}

// read fills in what the library tells. Where there is no library, as in some containers, nvidia-smi is asked.
func (d *devices) read(ctx context.Context, m *Machine) {
	err := d.ask(m)
	switch {
	case err == nil:
	case errors.Is(err, nvml.ERROR_LIBRARY_NOT_FOUND):
		readSMI(ctx, m)
	case errors.Is(err, nvml.ERROR_DRIVER_NOT_LOADED):
		m.GPUs, m.GPUProblem = nil, "the NVIDIA driver is installed but not loaded; load it (modprobe nvidia) or restart the machine"
	case errors.Is(err, nvml.ERROR_LIB_RM_VERSION_MISMATCH):
		m.GPUs, m.GPUProblem = nil, mismatch
	default:
		m.GPUs, m.GPUProblem = nil, err.Error()
	}
	if err != nil {
		d.close() // the driver may have been replaced: the next read begins anew
	}
}

func (d *devices) ask(m *Machine) error {
	if !d.open {
		if ret := d.lib.Init(); ret != nvml.SUCCESS {
			return fmt.Errorf("start NVML: %w", ret)
		}
		d.open = true
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
	for i := range count {
		m.GPUs = append(m.GPUs, d.gpu(i))
	}
	return nil
}

// gpu reads one GPU. One that fell off the bus keeps its place, with the reason.
func (d *devices) gpu(index int) GPU {
	g := GPU{Index: index, Utilization: Unknown, Temperature: Unknown, Processes: Unknown}
	device, ret := d.lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		g.Problem = fmt.Sprintf("the driver does not give access to GPU %d: %v", index, ret)
		return g
	}
	if g.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		g.Problem = fmt.Sprintf("the driver does not tell the UUID of GPU %d: %v", index, ret)
	}
	g.Name, _ = device.GetName()
	if memory, ret := device.GetMemoryInfo(); ret == nvml.SUCCESS {
		g.Memory, g.MemoryUsed = int64(memory.Total), int64(memory.Used)
	} else if ret == nvml.ERROR_GPU_IS_LOST {
		g.Problem = fmt.Sprintf("GPU %d is lost (it fell off the bus); restart the machine", index)
	}
	use(&g, device)
	return g
}

// use reads what changes from moment to moment. A figure that the GPU does not have stays Unknown.
func use(g *GPU, device nvml.Device) {
	if mode, _, ret := device.GetMigMode(); ret == nvml.SUCCESS {
		g.MIG = mode == nvml.DEVICE_MIG_ENABLE
	}
	if rates, ret := device.GetUtilizationRates(); ret == nvml.SUCCESS {
		g.Utilization = int(rates.Gpu)
	}
	if degrees, ret := device.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
		g.Temperature = int(degrees)
	}
	if processes, ret := device.GetComputeRunningProcesses(); ret == nvml.SUCCESS {
		g.Processes = len(processes)
	}
}
