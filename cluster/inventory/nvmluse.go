//go:build cgo

package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Sample implements Source.
func (d *devices) Sample(ctx context.Context) (Sample, error) {
	if err := d.start(); err != nil {
		if errors.Is(err, nvml.ERROR_LIBRARY_NOT_FOUND) {
			return d.smi.Sample(ctx)
		}
		return Sample{}, err
	}
	count, ret := d.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		d.Close()
		return Sample{}, fmt.Errorf("count GPUs: %w", ret)
	}
	s := Sample{Time: time.Now()}
	for i := range count {
		device, ret := d.lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		if mode, _, ret := device.GetMigMode(); ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
			eachInstance(device, func(in nvml.Device) { s.add(in) })
			continue
		}
		s.add(device)
	}
	s.Faults, s.Health = d.faults.poll(d.lib, s.Time)
	return s, nil
}

// add reads the use of one device. It leaves out a device that does not answer.
func (s *Sample) add(device nvml.Device) {
	uuid, ret := device.GetUUID()
	if ret != nvml.SUCCESS {
		return
	}
	memory, ret := device.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return
	}
	u := Use{UUID: uuid, Memory: int64(memory.Used), Busy: Unknown}
	if rates, ret := device.GetUtilizationRates(); ret == nvml.SUCCESS {
		u.Busy = int(rates.Gpu)
	}
	compute, ret := device.GetComputeRunningProcesses()
	u.Listed = ret == nvml.SUCCESS
	computes := map[uint32]bool{}
	for _, p := range compute {
		computes[p.Pid] = true
		u.Processes = append(u.Processes, process(p, false))
	}
	graphics, _ := device.GetGraphicsRunningProcesses()
	for _, p := range graphics {
		if !computes[p.Pid] {
			u.Processes = append(u.Processes, process(p, true))
		}
	}
	s.Uses = append(s.Uses, u)
}

func process(p nvml.ProcessInfo, graphics bool) Process {
	memory := int64(p.UsedGpuMemory)
	if memory < 0 { // NVML_VALUE_NOT_AVAILABLE, as under Windows' driver model
		memory = Unknown
	}
	return Process{PID: int(p.Pid), Memory: memory, Graphics: graphics}
}

const (
	// wanted are the GPU events that are watched if the driver supports them.
	wanted = nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError | nvml.EventTypeGpuUnavailableError |
		nvml.EventTypeGpuRecoveryAction
	// doubleBit is the Xid for an uncorrected memory error that is reported by an event of its own.
	doubleBit = 48
	// lostGPU is the Xid for a GPU that is unavailable.
	lostGPU = 79
	// mostFaults bounds the events per sample, because the driver repeats some endlessly.
	mostFaults = 64
	// firstPause and longestPause bound the pause after an error of the driver.
	firstPause, longestPause = time.Second, time.Minute
	// unknownAfter is how many consecutive errors make the health of the devices unknown.
	unknownAfter = 3
)

// faultWatch receives the driver's events. An error of the driver is not a fault of a device:
// watching begins again after a pause, and after some in a row the health of the devices is
// unknown.
type faultWatch struct {
	set    nvml.EventSet
	failed int // consecutive errors
	again  time.Time
	err    error
}

func (f *faultWatch) close() {
	if f.set != nil {
		f.set.Free()
		f.set = nil
	}
}

// poll returns the faults since the last call. It does not wait.
func (f *faultWatch) poll(lib nvml.Interface, now time.Time) ([]Fault, error) {
	if now.Before(f.again) {
		return nil, f.health()
	}
	if f.set == nil {
		if err := f.open(lib); err != nil {
			return nil, f.fail(now, err)
		}
	}
	var all []Fault
	for range mostFaults {
		e, ret := f.set.Wait(0)
		if ret == nvml.ERROR_TIMEOUT {
			break
		}
		if ret != nvml.SUCCESS {
			f.close()
			return all, f.fail(now, fmt.Errorf("wait for events of the GPUs: %w", ret))
		}
		if fault, ok := faultOf(e, now); ok {
			all = append(all, fault)
		}
	}
	f.failed, f.err = 0, nil
	return all, nil
}

func (f *faultWatch) fail(now time.Time, err error) error {
	f.failed++
	f.err = err
	f.again = now.Add(min(longestPause, firstPause<<min(f.failed-1, 10)))
	return f.health()
}

func (f *faultWatch) health() error {
	if f.failed < unknownAfter {
		return nil
	}
	return f.err
}

// open registers for the events that each GPU supports. Some GPUs support none.
func (f *faultWatch) open(lib nvml.Interface) error {
	set, ret := lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("watch the GPUs: %w", ret)
	}
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		set.Free()
		return fmt.Errorf("count GPUs: %w", ret)
	}
	for i := range count {
		device, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		if has, ret := device.GetSupportedEventTypes(); ret == nvml.SUCCESS && has&wanted != 0 {
			device.RegisterEvents(has&wanted, set) // a GPU that refuses is watched only through its recovery action
		}
	}
	f.set = set
	return nil
}

// faultOf converts an event. If its device cannot be identified, it concerns all devices.
func faultOf(e nvml.EventData, now time.Time) (Fault, bool) {
	f := Fault{Time: now, GPUInstance: instanceID(e.GpuInstanceId), ComputeInstance: instanceID(e.ComputeInstanceId)}
	switch e.EventType {
	case nvml.EventTypeXidCriticalError:
		f.Xid = int(e.EventData)
	case nvml.EventTypeDoubleBitEccError:
		f.Xid = doubleBit
	case nvml.EventTypeGpuUnavailableError:
		f.Xid = lostGPU
	case nvml.EventTypeGpuRecoveryAction:
	default:
		return f, false
	}
	if e.Device != nil {
		f.UUID, _ = e.Device.GetUUID()
	}
	return f, true
}

// instanceID converts the ID of an event's instance, which is 0xFFFFFFFF if the event concerns the
// whole GPU.
func instanceID(id uint32) int {
	if id > 1<<16 {
		return Unknown
	}
	return int(id)
}
