package inventory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	firstUUID  = "GPU-5c2f1a7e-1f44-4ad1-9f0c-6d3a1f0b8e11"
	secondUUID = "GPU-9a3d7c55-02b7-4b83-8a4e-2c5f77d0c9aa"
)

// plantSMI puts an nvidia-smi into PATH that prints a file for each query.
func plantSMI(t *testing.T, report, list, capabilities string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	status := "0"
	if strings.Contains(report, "nable to determine") || !strings.Contains(report, reportStart) {
		status = "15"
	}
	for name, text := range map[string]string{
		"report": report, "list": list, "capabilities": capabilities,
		"nvidia-smi": "#!/bin/sh\ncase $1 in -q) cat " + dir + "/report; exit " + status + ";; -L) cat " + dir +
			"/list;; *) cat " + dir + "/capabilities;; esac\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSMI parses the reports of several drivers.
func TestSMI(t *testing.T) {
	plain := GPU{Utilization: 87, Temperature: 61, Power: 301, Processes: 2, Group: Unknown, NUMA: Unknown,
		Persistence: true, Recovery: RecoveryUnknown}
	first := plain
	first.UUID, first.Name, first.Memory, first.MemoryUsed, first.Capability = firstUUID, "NVIDIA A100-SXM4-40GB",
		40960<<20, 1234<<20, "8.0"
	second := GPU{
		Index: 1, UUID: secondUUID, Name: "NVIDIA A100-SXM4-40GB", Memory: 40960 << 20,
		MemoryUsed: 87 << 20, Capability: "8.0",
		Utilization: Unknown, Temperature: 33, Power: 57, Group: Unknown, NUMA: Unknown, MIG: true,
		Recovery: RecoveryUnknown, Mode: Exclusive,
		Processes: 1,
		Instances: []Instance{
			{UUID: "MIG-a94d6a2b-1f0e-5b7c-8b6e-6f2a8f0a1b01", Profile: "3g.20gb", Memory: 19968 << 20,
				MemoryUsed: 37 << 20, GPUInstance: 2},
			{UUID: "MIG-a94d6a2b-1f0e-5b7c-8b6e-6f2a8f0a1b02", Profile: "1c.3g.20gb", Memory: 19968 << 20,
				MemoryUsed: 11 << 20, GPUInstance: 1, ComputeInstance: 1},
		},
	}
	newer := first
	newer.Recovery, newer.Mode = RecoveryReset, Prohibited
	lost := GPU{
		Index: 1, UUID: secondUUID, Name: "NVIDIA A100-SXM4-40GB", Utilization: Unknown, Temperature: Unknown,
		Power: Unknown, Group: Unknown,
		NUMA: Unknown, Recovery: RecoveryReboot, Capability: "8.0",
		Problem: "GPU 1 is lost (it fell off the bus); restart the machine",
	}
	apart := GPU{
		Index: 1, Utilization: Unknown, Temperature: Unknown, Power: Unknown, Processes: Unknown, Group: Unknown,
		NUMA: Unknown, Recovery: RecoveryUnknown,
		Problem: "nvidia-smi says: Unable to determine the device handle for GPU0000:0F:00.0: GPU is lost.  Reboot the system to recover this GPU",
	}
	list := recorded(t, "list.txt")
	for name, want := range map[string]Machine{
		"driver470-mig.xml":  {Driver: "470.199.02", CUDA: "11.4", GPUs: []GPU{first, second}},
		"driver535.xml":      {Driver: "535.183.01", CUDA: "12.2", GPUs: []GPU{first}},
		"driver550-lost.xml": {Driver: "550.54.15", CUDA: "12.4", GPUs: []GPU{first, apart}},
		"driver580-lost.xml": {Driver: "580.65.06", CUDA: "13.0", GPUs: []GPU{newer, lost}},
		"nogpu.xml":          {Driver: "550.54.15"},
	} {
		t.Run(name, func(t *testing.T) {
			plantSMI(t, recorded(t, name), list, firstUUID+", 8.0\n"+secondUUID+", 8.0\n")
			var m Machine
			(&smi{}).Read(t.Context(), &m)
			if diff := cmp.Diff(want, m); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSMISample(t *testing.T) {
	plantSMI(t, recorded(t, "driver470-mig.xml"), recorded(t, "list.txt"), "")
	source := &smi{}
	s, err := source.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Use{
		{UUID: firstUUID, Memory: 1234 << 20, Busy: 87, Listed: true, Processes: []Process{
			{PID: 4242, Memory: 1000 << 20}, {PID: 4243, Memory: Unknown},
			{PID: 1717, Memory: 12 << 20, Graphics: true}}},
		{UUID: "MIG-a94d6a2b-1f0e-5b7c-8b6e-6f2a8f0a1b01", Memory: 37 << 20, Busy: Unknown, Listed: true,
			Processes: []Process{{PID: 4300, Memory: 30 << 20}}},
		{UUID: "MIG-a94d6a2b-1f0e-5b7c-8b6e-6f2a8f0a1b02", Memory: 11 << 20, Busy: Unknown, Listed: true},
	}
	if diff := cmp.Diff(want, s.Uses); diff != "" {
		t.Error(diff)
	}
	if again, err := source.Sample(t.Context()); err != nil || !again.Time.Equal(s.Time) {
		t.Errorf("nvidia-smi runs again immediately: %v, %v", again.Time, err)
	}
}

func TestSMIProblems(t *testing.T) {
	for out, want := range map[string]string{
		"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n":                                                          mismatch,
		"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n": "couldn't communicate",
		"Unable to determine the device handle for GPU0000:07:00.0: GPU is lost.  Reboot the system to recover this GPU\n":                                    "GPU is lost",
		"": "run nvidia-smi: exit status 15",
	} {
		plantSMI(t, out, "", "")
		m := Machine{}
		(&smi{}).Read(t.Context(), &m)
		if len(m.GPUs) != 0 || !strings.Contains(m.GPUProblem, want) {
			t.Errorf("%q: got %+v, want %q in the problem", out, m, want)
		}
		if _, err := (&smi{}).Sample(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: sampled with the error %v, want %q in it", out, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	var m Machine
	if (&smi{}).Read(t.Context(), &m); m.GPUProblem != "" || m.GPUs != nil {
		t.Errorf("without the program: got %+v", m)
	}
	if _, err := (&smi{}).Sample(context.Background()); !errors.Is(err, errNoSMI) {
		t.Errorf("without the program: got %v", err)
	}
}

func FuzzParseReport(f *testing.F) {
	for _, name := range []string{"driver470-mig.xml", "driver550-lost.xml", "driver580-lost.xml"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), "GPU 0: A (UUID: GPU-1)\n  MIG 1g.5gb     Device  0: (UUID: MIG-2)\n")
	}
	f.Fuzz(func(t *testing.T, text, list string) {
		r, err := parseReport(text)
		if err != nil {
			return
		}
		r.nameInstances(list)
		for _, g := range r.gpus(nil) {
			if g.Memory < 0 || g.UUID == "" && g.Problem == "" {
				t.Errorf("got %+v", g)
			}
		}
		r.uses()
	})
}
