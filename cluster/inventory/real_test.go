//go:build cgo

package inventory

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestNVMLWithoutLibrary checks that nvidia-smi is used if the library is missing.
func TestNVMLWithoutLibrary(t *testing.T) {
	plantSMI(t, recorded(t, "driver470-mig.xml"), recorded(t, "list.txt"), firstUUID+", 8.0\n")
	s := newScripted()
	s.InitFunc = func() nvml.Return { return nvml.ERROR_LIBRARY_NOT_FOUND }
	d := &devices{lib: s}
	defer d.Close()
	var m Machine
	if d.Read(t.Context(), &m); len(m.GPUs) != 2 || len(m.GPUs[1].Instances) != 2 || m.GPUProblem != "" {
		t.Errorf("got %+v", m)
	}
	if sample, err := d.Sample(t.Context()); err != nil || len(sample.Uses) != 3 {
		t.Errorf("got %+v, %v", sample, err)
	}
}

// TestRealGPUs compares both ways of reading the GPUs of this machine, with and without cgo. It is
// skipped on a machine without GPUs.
func TestRealGPUs(t *testing.T) {
	var library, program Machine
	d := newDevices()
	defer d.Close()
	if d.Read(t.Context(), &library); len(library.GPUs) == 0 {
		t.Skipf("needs a GPU: %q", library.GPUProblem)
	}
	(&smi{}).Read(t.Context(), &program)
	// nvidia-smi does not report connections, and the other values change between the readings.
	moving := cmpopts.IgnoreFields(GPU{}, "MemoryUsed", "Utilization", "Temperature", "Power", "Processes", "Group",
		"Recovery")
	if diff := cmp.Diff(library, program, moving, cmpopts.IgnoreFields(Instance{}, "MemoryUsed")); diff != "" {
		t.Errorf("NVML and nvidia-smi differ: %s", diff)
	}
	for _, source := range []Source{d, &smi{}} {
		s, err := source.Sample(t.Context())
		if err != nil || s.Health != nil || len(s.Uses) == 0 {
			t.Errorf("%T: got %+v, %v", source, s, err)
		}
	}
}
