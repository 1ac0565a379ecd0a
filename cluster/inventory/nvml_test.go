//go:build cgo

package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
)

// scripted is go-nvml's mock of a machine with eight A100s, extended by what the mock lacks:
// processes, events, links, fields and MIG devices.
type scripted struct {
	*dgxa100.Server
	compute  [8][]nvml.ProcessInfo
	graphics [8][]nvml.ProcessInfo
	events   []nvml.EventData // pending
	wait     nvml.Return      // result of waiting for events, unless SUCCESS
	sets     int              // open event sets
	recovery [8]uint32
}

func bus(i int) (info nvml.PciInfo) {
	for k, c := range fmt.Sprintf("00000000:%02X:00.0", i+1) {
		info.BusId[k] = int8(c)
	}
	return info
}

func newScripted() *scripted {
	s := &scripted{Server: dgxa100.New()}
	set := &mock.EventSet{
		FreeFunc: func() nvml.Return { s.sets--; return nvml.SUCCESS },
		WaitFunc: func(uint32) (nvml.EventData, nvml.Return) {
			if s.wait != nvml.SUCCESS {
				return nvml.EventData{}, s.wait
			}
			if len(s.events) == 0 {
				return nvml.EventData{}, nvml.ERROR_TIMEOUT
			}
			e := s.events[0]
			s.events = s.events[1:]
			return e, nvml.SUCCESS
		},
	}
	s.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { s.sets++; return set, nvml.SUCCESS }
	for i, device := range s.Devices {
		d := device.(*dgxa100.Device)
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
			return nvml.Utilization{Gpu: uint32(10 * i)}, nvml.SUCCESS
		}
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, nvml.SUCCESS }
		d.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 61500, nvml.SUCCESS }
		d.GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) { return nvml.COMPUTEMODE_DEFAULT, nvml.SUCCESS }
		d.GetPersistenceModeFunc = func() (nvml.EnableState, nvml.Return) { return nvml.FEATURE_ENABLED, nvml.SUCCESS }
		d.GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) { return bus(i), nvml.SUCCESS }
		d.GetComputeRunningProcessesFunc =
			func() ([]nvml.ProcessInfo, nvml.Return) { return s.compute[i], nvml.SUCCESS }
		d.GetGraphicsRunningProcessesFunc =
			func() ([]nvml.ProcessInfo, nvml.Return) { return s.graphics[i], nvml.SUCCESS }
		d.GetSupportedEventTypesFunc =
			func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError, nvml.SUCCESS }
		d.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.SUCCESS }
		d.GetFieldValuesFunc = func(values []nvml.FieldValue) nvml.Return {
			binary.NativeEndian.PutUint32(values[0].Value[:], s.recovery[i])
			return nvml.SUCCESS
		}
		// Four GPUs are on one switch, two are linked with each other, and two have no links.
		d.GetNvLinkStateFunc = func(link int) (nvml.EnableState, nvml.Return) {
			if i >= 6 || link > 1 {
				return 0, nvml.ERROR_INVALID_ARGUMENT
			}
			return nvml.FEATURE_ENABLED, nvml.SUCCESS
		}
		d.GetNvLinkRemotePciInfoFunc = func(int) (nvml.PciInfo, nvml.Return) {
			if i < 4 {
				return bus(100), nvml.SUCCESS
			}
			return bus(9 - i), nvml.SUCCESS
		}
		d.GetTopologyCommonAncestorFunc = func(nvml.Device) (nvml.GpuTopologyLevel,
			nvml.Return) {
			return nvml.TOPOLOGY_SYSTEM, nvml.SUCCESS
		}
	}
	return s
}

// divide puts a GPU into MIG mode, with an instance at its second index.
func (s *scripted) divide(i int) {
	d := s.Devices[i].(*dgxa100.Device)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
	}
	d.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	in := &mock.Device{
		GetUUIDFunc: func() (string, nvml.Return) { return "MIG-1", nvml.SUCCESS },
		GetNameFunc: func() (string,
			nvml.Return) {
			return "NVIDIA A100-SXM4-40GB MIG 1g.5gb", nvml.SUCCESS
		},
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) {
			return nvml.Memory{Total: 5 << 30, Used: 1 << 30}, nvml.SUCCESS
		},
		GetGpuInstanceIdFunc:     func() (int, nvml.Return) { return 7, nvml.SUCCESS },
		GetComputeInstanceIdFunc: func() (int, nvml.Return) { return 0, nvml.SUCCESS },
		GetUtilizationRatesFunc: func() (nvml.Utilization, nvml.Return) {
			return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED
		},
		GetComputeRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) { return s.compute[i], nvml.SUCCESS },
		GetGraphicsRunningProcessesFunc: func() ([]nvml.ProcessInfo, nvml.Return) {
			return nil,
				nvml.ERROR_NOT_SUPPORTED
		},
	}
	d.GetMigDeviceHandleByIndexFunc = func(place int) (nvml.Device, nvml.Return) {
		if place != 1 {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return in, nvml.SUCCESS
	}
}

func TestNVML(t *testing.T) {
	s := newScripted()
	s.divide(1)
	s.recovery[2] = 2
	s.compute[3] = make([]nvml.ProcessInfo, 3)
	s.Devices[5].(*dgxa100.Device).GetComputeModeFunc = func() (nvml.ComputeMode, nvml.Return) {
		return nvml.COMPUTEMODE_EXCLUSIVE_PROCESS, nvml.SUCCESS
	}
	s.Devices[7].(*dgxa100.Device).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
	}
	d := &devices{lib: s}
	var m Machine
	d.Read(t.Context(), &m)
	if len(m.GPUs) != 8 || m.GPUProblem != "" || m.Driver == "" || m.CUDA != "12.4" {
		t.Fatalf("got %+v", m)
	}
	g := m.GPUs[3]
	want := GPU{
		Index: 3, UUID: g.UUID, Name: g.Name, Memory: g.Memory, MemoryUsed: g.MemoryUsed, Utilization: 30,
		Temperature: 40, Power: 61, Processes: 3,
		Capability: "8.0", NUMA: Unknown, Persistence: true,
	}
	if diff := cmp.Diff(want, g); diff != "" || !strings.Contains(g.Name, "A100") ||
		!strings.HasPrefix(g.UUID, "GPU-") || g.Memory < 39<<30 {
		t.Errorf("got %+v: %s", g, diff)
	}
	instances := []Instance{{UUID: "MIG-1", Profile: "1g.5gb", Memory: 5 << 30, MemoryUsed: 1 << 30, GPUInstance: 7}}
	if g := m.GPUs[1]; !g.MIG || g.Utilization != Unknown || cmp.Diff(instances, g.Instances) != "" {
		t.Errorf("in MIG mode: got %+v", g)
	}
	if g := m.GPUs[2]; g.Recovery != RecoveryReboot || !strings.Contains(g.Recovery.String(), "restart") {
		t.Errorf("recovery: got %+v", g)
	}
	if g := m.GPUs[5]; g.Mode != Exclusive {
		t.Errorf("mode: got %+v", g)
	}
	if g := m.GPUs[7]; !strings.Contains(g.Problem, "lost") {
		t.Errorf("lost: got %+v", g)
	}
	var groups []int
	for _, g := range m.GPUs {
		groups = append(groups, g.Group)
	}
	if diff := cmp.Diff([]int{0, 0, 0, 0, 4, 4, 6, Unknown}, groups); diff != "" {
		t.Errorf("groups: %s", diff)
	}
	d.Read(t.Context(), &Machine{})
	if n := len(s.InitCalls()); n != 1 {
		t.Errorf("got %d starts of the library for two reads, want 1", n)
	}
	d.Close()
	d.Close()
	if n := len(s.ShutdownCalls()); n != 1 {
		t.Errorf("got %d ends of the library, want 1", n)
	}
}

// TestNVMLGroupsByBridge groups GPUs without NVLink by their common host bridge.
func TestNVMLGroupsByBridge(t *testing.T) {
	s := newScripted()
	for i, device := range s.Devices {
		d := device.(*dgxa100.Device)
		d.GetNvLinkStateFunc = func(int) (nvml.EnableState, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
		d.GetTopologyCommonAncestorFunc = func(other nvml.Device) (nvml.GpuTopologyLevel, nvml.Return) {
			if other.(*dgxa100.Device).Index/2 == i/2 {
				return nvml.TOPOLOGY_HOSTBRIDGE, nvml.SUCCESS
			}
			return nvml.TOPOLOGY_NODE, nvml.SUCCESS
		}
	}
	var m Machine
	(&devices{lib: s}).Read(t.Context(), &m)
	for i, g := range m.GPUs {
		if g.Group != i/2*2 {
			t.Errorf("GPU %d is in group %d", i, g.Group)
		}
	}
}

func TestNVMLProblems(t *testing.T) {
	tests := map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND:       "",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: mismatch,
		nvml.ERROR_DRIVER_NOT_LOADED:       "not loaded",
		nvml.ERROR_NO_PERMISSION:           "start NVML",
	}
	t.Setenv("PATH", t.TempDir()) // no nvidia-smi
	for ret, want := range tests {
		s := newScripted()
		s.InitFunc = func() nvml.Return { return ret }
		d := &devices{lib: s}
		var m Machine
		d.Read(t.Context(), &m)
		if len(m.GPUs) != 0 || (m.GPUProblem == "") != (want == "") || !strings.Contains(m.GPUProblem, want) {
			t.Errorf("%d: got %+v, want %q", ret, m, want)
		}
		if _, err := d.Sample(t.Context()); err == nil {
			t.Errorf("%d: a sample without a driver", ret)
		}
	}
}

// TestNVMLBeginsAgain unloads the driver between two readings, and between two samples.
func TestNVMLBeginsAgain(t *testing.T) {
	s := newScripted()
	d := &devices{lib: s}
	defer d.Close()
	d.Read(t.Context(), &Machine{})
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNINITIALIZED }
	var m Machine
	if d.Read(t.Context(), &m); m.GPUProblem == "" {
		t.Error("got no problem")
	}
	if _, err := d.Sample(t.Context()); err == nil {
		t.Error("got a sample")
	}
	s.DeviceGetCountFunc = func() (int, nvml.Return) { return 8, nvml.SUCCESS }
	m = Machine{}
	if d.Read(t.Context(), &m); len(m.GPUs) != 8 || m.GPUProblem != "" {
		t.Errorf("got %+v", m)
	}
	if sample, err := d.Sample(t.Context()); err != nil || len(sample.Uses) != 8 {
		t.Errorf("got %+v, %v", sample, err)
	}
}

func TestNVMLSample(t *testing.T) {
	s := newScripted()
	s.divide(1)
	s.compute[0] = []nvml.ProcessInfo{{Pid: 77, UsedGpuMemory: 3 << 30}, {Pid: 78, UsedGpuMemory: ^uint64(0)}}
	s.graphics[0] = []nvml.ProcessInfo{{Pid: 77, UsedGpuMemory: 3 << 30}, {Pid: 5, UsedGpuMemory: 1 << 20}}
	s.compute[1] = []nvml.ProcessInfo{{Pid: 99, UsedGpuMemory: 1 << 30}}
	s.Devices[6].(*dgxa100.Device).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
	}
	s.events = []nvml.EventData{
		{Device: s.Devices[0], EventType: nvml.EventTypeXidCriticalError, EventData: 79, GpuInstanceId: ^uint32(0),
			ComputeInstanceId: ^uint32(0)},
		{Device: s.Devices[1], EventType: nvml.EventTypeXidCriticalError, EventData: 13, GpuInstanceId: 7},
		{EventType: nvml.EventTypeDoubleBitEccError, GpuInstanceId: ^uint32(0), ComputeInstanceId: ^uint32(0)},
		{Device: s.Devices[2], EventType: nvml.EventTypeClock},
	}
	d := &devices{lib: s}
	defer d.Close()
	got, err := d.Sample(t.Context())
	if err != nil || got.Health != nil {
		t.Fatalf("got %v, %v", err, got.Health)
	}
	uuid := s.Devices[0].(*dgxa100.Device).UUID
	first, _ := got.Find(uuid)
	want := []Process{{PID: 77, Memory: 3 << 30}, {PID: 78, Memory: Unknown}, {PID: 5, Memory: 1 << 20, Graphics: true}}
	if diff := cmp.Diff(want, first.Processes); diff != "" || !first.Listed {
		t.Errorf("processes: %s", diff)
	}
	if in, ok := got.Find("MIG-1"); !ok || in.Memory != 1<<30 || len(in.Processes) != 1 {
		t.Errorf("instance: got %+v", in)
	}
	if _, ok := got.Find(s.Devices[1].(*dgxa100.Device).UUID); ok || len(got.Uses) != 7 {
		t.Errorf("got %d devices; a GPU in MIG mode, and one that is lost, have no use", len(got.Uses))
	}
	faults := []Fault{
		{Time: got.Time, UUID: uuid, Xid: 79, GPUInstance: Unknown, ComputeInstance: Unknown},
		{Time: got.Time, UUID: s.Devices[1].(*dgxa100.Device).UUID, Xid: 13, GPUInstance: 7},
		{Time: got.Time, Xid: 48, GPUInstance: Unknown, ComputeInstance: Unknown},
	}
	if diff := cmp.Diff(faults, got.Faults); diff != "" {
		t.Errorf("faults: %s", diff)
	}
	if again, _ := d.Sample(t.Context()); len(again.Faults) != 0 {
		t.Errorf("got the faults %v twice", again.Faults)
	}
}

// TestNVMLWaitFails makes waiting for events fail for a while: it is retried with increasing
// pauses, the health is unknown after several failures, and no device is at fault.
func TestNVMLWaitFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted()
		d := &devices{lib: s}
		s.wait = nvml.ERROR_UNKNOWN
		unknown, faults := 0, 0
		for range 600 {
			got, err := d.Sample(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Health != nil {
				unknown++
				if !errors.Is(got.Health, nvml.ERROR_UNKNOWN) {
					t.Fatal(got.Health)
				}
			}
			faults += len(got.Faults)
			time.Sleep(time.Second)
		}
		if n := len(s.EventSetCreateCalls()); n < 5 || n > 20 || s.sets != 0 || faults != 0 || unknown < 590 {
			t.Errorf("got %d tries in ten minutes, %d sets left open, %d faults, and %d times an unknown health", n,
				s.sets, faults, unknown)
		}
		s.wait = nvml.SUCCESS
		time.Sleep(longestPause)
		s.events = []nvml.EventData{{Device: s.Devices[0], EventType: nvml.EventTypeXidCriticalError, EventData: 31}}
		if got, err := d.Sample(t.Context()); err != nil || got.Health != nil || len(got.Faults) != 1 {
			t.Errorf("afterwards: got %+v, %v", got, err)
		}
		d.Close()
		if s.sets != 0 {
			t.Errorf("%d sets left open", s.sets)
		}
	})
}

// TestNVMLFloodOfEvents checks that a sample takes a bounded number of events, so that a driver
// that repeats an event endlessly does no harm.
func TestNVMLFloodOfEvents(t *testing.T) {
	s := newScripted()
	for range 10 * mostFaults {
		s.events = append(s.events,
			nvml.EventData{Device: s.Devices[0], EventType: nvml.EventTypeXidCriticalError, EventData: 31})
	}
	got, err := (&devices{lib: s}).Sample(t.Context())
	if err != nil || len(got.Faults) != mostFaults {
		t.Errorf("got %d faults, %v", len(got.Faults), err)
	}
}
