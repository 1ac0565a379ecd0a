package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The answers of nvidia-smi, in the format of driver 550.
const (
	smiList = `0, GPU-5c2f1a7e-1f44-4ad1-9f0c-6d3a1f0b8e11, NVIDIA A100-SXM4-40GB, 40960, 1234, 87, 61, Disabled, 550.54.15
1, GPU-9a3d7c55-02b7-4b83-8a4e-2c5f77d0c9aa, NVIDIA A100-SXM4-40GB, 40960, 87, [N/A], 33, Enabled, 550.54.15
2, GPU-0f0e0d0c-0b0a-0908-0706-050403020100, Tesla K80, 11441, 0, [N/A], [N/A], [N/A], 550.54.15
`
	smiApps = `GPU-5c2f1a7e-1f44-4ad1-9f0c-6d3a1f0b8e11, 4242
GPU-5c2f1a7e-1f44-4ad1-9f0c-6d3a1f0b8e11, 4243
GPU-00000000-0000-0000-0000-000000000000, 1
`
	smiTable = `Mon Mar  4 10:11:12 2024
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
`
	smiMismatch = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"
)

// answers stands for nvidia-smi.
func answers(list, apps, table string) func(...string) (string, error) {
	return func(args ...string) (string, error) {
		switch {
		case len(args) == 0:
			return table, nil
		case strings.HasPrefix(args[0], "--query-gpu="):
			return list, nil
		}
		return apps, nil
	}
}

func TestSMI(t *testing.T) {
	var m Machine
	if err := askSMI(&m, answers(smiList, smiApps, smiTable)); err != nil {
		t.Fatal(err)
	}
	want := Machine{Driver: "550.54.15", CUDA: "12.4", GPUs: []GPU{
		{Index: 0, UUID: "GPU-5c2f1a7e-1f44-4ad1-9f0c-6d3a1f0b8e11", Name: "NVIDIA A100-SXM4-40GB", Memory: 40960 << 20, MemoryUsed: 1234 << 20, Utilization: 87, Temperature: 61, Processes: 2},
		{Index: 1, UUID: "GPU-9a3d7c55-02b7-4b83-8a4e-2c5f77d0c9aa", Name: "NVIDIA A100-SXM4-40GB", Memory: 40960 << 20, MemoryUsed: 87 << 20, Utilization: Unknown, Temperature: 33, MIG: true},
		{Index: 2, UUID: "GPU-0f0e0d0c-0b0a-0908-0706-050403020100", Name: "Tesla K80", Memory: 11441 << 20, Utilization: Unknown, Temperature: Unknown},
	}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestSMIWithoutGPUs(t *testing.T) {
	var m Machine
	if err := askSMI(&m, answers("", "", "CUDA Version: N/A |")); err != nil || len(m.GPUs) != 0 || m.CUDA != "" {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestSMIProblems(t *testing.T) {
	failed := errors.New("exit status 18")
	tests := map[string]string{
		smiMismatch: "restart the machine",
		"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n": "couldn't communicate",
		"": "run nvidia-smi: exit status 18",
	}
	for out, want := range tests {
		var m Machine
		err := askSMI(&m, func(...string) (string, error) { return out, smiError(out, failed) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q in it", out, err, want)
		}
	}
	var m Machine
	if err := askSMI(&m, answers("0, GPU-1\n", "", "")); err == nil {
		t.Error("read a line with two fields")
	}
	lost := "3, [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], [Unknown Error], 550.54.15\n"
	if err := askSMI(&m, answers(lost, "", "")); err != nil || len(m.GPUs) != 1 || m.GPUs[0].Problem == "" || m.GPUs[0].UUID != "" || m.GPUs[0].Memory != 0 {
		t.Errorf("a lost GPU: got %+v, %v", m, err)
	}
}

// TestReadSMI runs a program of that name.
func TestReadSMI(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	var m Machine
	if readSMI(t.Context(), &m); m.GPUProblem != "" || m.GPUs != nil {
		t.Errorf("without the program: got %+v", m)
	}
	script := "#!/bin/sh\ncase $1 in --query-gpu*) printf '%s' '" + smiList + "';; --query-compute*) ;; *) echo 'CUDA Version: 12.4';; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if readSMI(t.Context(), &m); len(m.GPUs) != 3 || m.CUDA != "12.4" || m.GPUProblem != "" {
		t.Errorf("got %+v", m)
	}
	script = "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if readSMI(t.Context(), &m); m.GPUs != nil || m.GPUProblem != mismatch {
		t.Errorf("got %+v", m)
	}
}

func FuzzParseGPUs(f *testing.F) {
	f.Add(smiList)
	f.Add("0, [N/A], \"x\n")
	f.Fuzz(func(t *testing.T, list string) {
		gpus, _, err := parseGPUs(list)
		for _, g := range gpus {
			if err == nil && (g.Memory < 0 || g.UUID == "" && g.Problem == "") {
				t.Errorf("got %+v", g)
			}
		}
	})
}
