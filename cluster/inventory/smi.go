package inventory

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mismatch is the state of a machine whose driver was updated under a running kernel module.
const mismatch = "the NVIDIA driver and its library have different versions, as after an update of the driver; restart the machine or reload the module"

const (
	// smiLimit bounds one look with nvidia-smi, which hangs on some broken GPUs. A driver without persistence mode takes seconds.
	smiLimit = 15 * time.Second
	// smiDelay is how long after its end its output is waited for: what it has started may hold that open.
	smiDelay = time.Second
)

// smiGPU is what is asked of each GPU, in the order of the answer's columns (nvidia-smi --help-query-gpu).
const smiGPU = "index,uuid,name,memory.total,memory.used,utilization.gpu,temperature.gpu,mig.mode.current,driver_version"

// readSMI fills in what nvidia-smi tells before ctx ends. Without that program there are no GPUs.
func readSMI(ctx context.Context, m *Machine) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, smiLimit)
	defer cancel()
	ask := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.WaitDelay = smiDelay
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a wrapper's children end with it
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		out, err := cmd.Output()
		if ctx.Err() != nil {
			return "", errors.New(silence)
		}
		return string(out), smiError(string(out), err)
	}
	if err := askSMI(m, ask); err != nil {
		m.GPUs, m.GPUProblem = nil, err.Error()
	}
}

// askSMI reads the GPUs, the programs on them and the version of CUDA, which only the plain table tells.
func askSMI(m *Machine, ask func(args ...string) (string, error)) error {
	list, err := ask("--query-gpu="+smiGPU, "--format=csv,noheader,nounits")
	if err != nil {
		return err
	}
	if m.GPUs, m.Driver, err = parseGPUs(list); err != nil {
		return fmt.Errorf("read the answer of nvidia-smi: %w", err)
	}
	if list, err := ask("--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"); err == nil {
		countProcesses(m.GPUs, list)
	}
	if table, err := ask(); err == nil {
		m.CUDA = cudaVersion(table)
	}
	return nil
}

// smiError explains why nvidia-smi failed. It writes its reasons to standard output.
func smiError(out string, err error) error {
	switch {
	case err == nil:
		return nil
	case strings.Contains(out, "version mismatch"):
		return errors.New(mismatch)
	case strings.TrimSpace(out) == "":
		return fmt.Errorf("run nvidia-smi: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return fmt.Errorf("nvidia-smi says: %s", first)
}

// parseGPUs reads one line for each GPU. A value in brackets, such as [N/A] or [Unknown Error], is not known.
func parseGPUs(list string) (gpus []GPU, driver string, err error) {
	r := csv.NewReader(strings.NewReader(list))
	r.TrimLeadingSpace, r.FieldsPerRecord, r.LazyQuotes = true, strings.Count(smiGPU, ",")+1, true
	lines, err := r.ReadAll()
	if err != nil {
		return nil, "", err
	}
	for _, f := range lines {
		index, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, "", fmt.Errorf("index of a GPU: %w", err)
		}
		g := GPU{
			Index: index, UUID: f[1], Name: f[2], Memory: mebibytes(f[3]), MemoryUsed: mebibytes(f[4]),
			Utilization: figure(f[5]), Temperature: figure(f[6]), MIG: f[7] == "Enabled", Processes: Unknown,
		}
		if !strings.HasPrefix(g.UUID, "GPU-") {
			g.UUID, g.Problem = "", fmt.Sprintf("the driver does not tell the UUID of GPU %d: %s", index, f[1])
		}
		gpus, driver = append(gpus, g), f[8]
	}
	return gpus, driver, nil
}

func mebibytes(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 43)
	if err != nil || n < 0 {
		return 0
	}
	return n << 20
}

func figure(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return Unknown
	}
	return n
}

// countProcesses counts the lines `GPU-…, pid`.
func countProcesses(gpus []GPU, list string) {
	for i := range gpus {
		gpus[i].Processes = 0
	}
	for line := range strings.Lines(list) {
		uuid, _, _ := strings.Cut(line, ",")
		if i := slices.IndexFunc(gpus, func(g GPU) bool { return g.UUID != "" && g.UUID == strings.TrimSpace(uuid) }); i >= 0 {
			gpus[i].Processes++
		}
	}
}

// cudaVersion finds `CUDA Version: 12.4` in the head of the plain table.
func cudaVersion(table string) string {
	_, rest, ok := strings.Cut(table, "CUDA Version:")
	if !ok {
		return ""
	}
	if words := strings.Fields(rest); len(words) > 0 && words[0] != "N/A" {
		return words[0]
	}
	return ""
}
