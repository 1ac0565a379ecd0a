//go:build cgo

package inventory

import (
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
)

// dgx is a machine with eight A100, one of them in MIG mode and one lost.
func dgx() *dgxa100.Server {
	server := dgxa100.New()
	for i, device := range server.Devices {
		d := device.(*dgxa100.Device)
		d.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: uint32(10 * i)}, nvml.SUCCESS }
		d.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, nvml.SUCCESS }
		d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
			return make([]nvml.ProcessInfo, i), nvml.SUCCESS
		}
	}
	mig := server.Devices[1].(*dgxa100.Device)
	mig.GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	mig.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
	lost := server.Devices[7].(*dgxa100.Device)
	lost.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) { return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST }
	return server
}

func TestNVML(t *testing.T) {
	server := dgx()
	d := &devices{lib: server}
	var m Machine
	d.read(t.Context(), &m)
	if len(m.GPUs) != 8 || m.GPUProblem != "" || m.Driver == "" || m.CUDA == "" {
		t.Fatalf("got %+v", m)
	}
	want := GPU{Index: 3, UUID: m.GPUs[3].UUID, Name: m.GPUs[3].Name, Memory: m.GPUs[3].Memory, MemoryUsed: m.GPUs[3].MemoryUsed, Utilization: 30, Temperature: 40, Processes: 3}
	if g := m.GPUs[3]; g != want || !strings.Contains(g.Name, "A100") || !strings.HasPrefix(g.UUID, "GPU-") || g.Memory < 39<<30 {
		t.Errorf("got %+v", g)
	}
	if g := m.GPUs[1]; !g.MIG || g.Utilization != Unknown {
		t.Errorf("in MIG mode: got %+v", g)
	}
	if g := m.GPUs[7]; !strings.Contains(g.Problem, "lost") {
		t.Errorf("lost: got %+v", g)
	}
	t.Logf("driver %s, CUDA %s, %+v", m.Driver, m.CUDA, m.GPUs[0])
	d.read(t.Context(), &Machine{})
	if n := len(server.InitCalls()); n != 1 {
		t.Errorf("got %d starts of the library for two reads, want 1", n)
	}
	d.close()
	d.close()
	if n := len(server.ShutdownCalls()); n != 1 {
		t.Errorf("got %d ends of the library, want 1", n)
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
		server := dgx()
		server.InitFunc = func() nvml.Return { return ret }
		var m Machine
		(&devices{lib: server}).read(t.Context(), &m)
		if len(m.GPUs) != 0 || (m.GPUProblem == "") != (want == "") || !strings.Contains(m.GPUProblem, want) {
			t.Errorf("%d: got %+v, want %q", ret, m, want)
		}
	}
}

// TestNVMLBeginsAnew lets the driver go away between two reads.
func TestNVMLBeginsAnew(t *testing.T) {
	server := dgx()
	d := &devices{lib: server}
	defer d.close()
	d.read(t.Context(), &Machine{})
	server.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNINITIALIZED }
	var m Machine
	if d.read(t.Context(), &m); m.GPUProblem == "" {
		t.Error("got no problem")
	}
	server.DeviceGetCountFunc = func() (int, nvml.Return) { return 8, nvml.SUCCESS }
	m = Machine{}
	if d.read(t.Context(), &m); len(m.GPUs) != 8 || m.GPUProblem != "" {
		t.Errorf("got %+v", m)
	}
}
