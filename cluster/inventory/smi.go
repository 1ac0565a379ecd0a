package inventory

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// mismatch describes a machine whose driver was updated under a running kernel module.
const mismatch = "the NVIDIA driver and its library have different versions, as after an update of the driver; " +
	"restart the machine or reload the module"

const (
	// smiLimit bounds one reading with nvidia-smi, which hangs on some broken GPUs. A driver
	// without persistence mode takes seconds.
	smiLimit = 15 * time.Second
	// smiDelay is how long to wait for output after nvidia-smi has ended: its child processes may
	// hold the output open.
	smiDelay = time.Second
	// smiEvery is the minimum interval at which Sample runs nvidia-smi, which keeps a processor
	// busy for a good part of a second.
	smiEvery = 2 * time.Second
)

// smi reads GPUs by running nvidia-smi. It sees the state after an error but not the error itself,
// so it reports no faults.
type smi struct {
	capabilities map[string]string // by UUID; the report lacks them
	sampled      Sample
	problem      error
}

// Close implements Source.
func (s *smi) Close() { *s = smi{} }

// Read implements Source. Without nvidia-smi there are no GPUs.
func (s *smi) Read(ctx context.Context, m *Machine) {
	ask, stop := askSMI(ctx)
	defer stop()
	if ask == nil {
		return
	}
	r, err := s.report(ask)
	if err != nil {
		m.GPUs, m.GPUProblem = nil, err.Error()
		return
	}
	m.Driver, m.CUDA, m.GPUs = r.Driver, known(r.CUDA), r.gpus(s.capabilities)
}

// errNoSMI is returned by Sample on a machine without nvidia-smi.
var errNoSMI = errors.New("nvidia-smi is not installed")

// Sample implements Source. Within two seconds it returns the same values again.
func (s *smi) Sample(ctx context.Context) (Sample, error) {
	if now := time.Now(); now.Sub(s.sampled.Time) < smiEvery {
		again := s.sampled
		again.Faults = nil
		return again, s.problem
	}
	ask, stop := askSMI(ctx)
	defer stop()
	if ask == nil {
		return Sample{}, errNoSMI
	}
	s.sampled, s.problem = Sample{Time: time.Now()}, nil
	r, err := s.report(ask)
	if err == nil {
		s.sampled.Uses = r.uses()
	}
	s.problem = err
	return s.sampled, err
}

// report reads the whole state, the names of instances and, once for each GPU, its compute
// capability.
func (s *smi) report(ask func(args ...string) (string, error)) (*report, error) {
	out, err := ask("-q", "-x")
	if err != nil {
		return nil, err
	}
	r, err := parseReport(out)
	if err != nil {
		return nil, fmt.Errorf("read the answer of nvidia-smi: %w", err)
	}
	// many drivers report neither their UUIDs nor their profiles
	if slices.ContainsFunc(r.GPUs, func(g reportGPU) bool { return len(g.Instances) > 0 }) {
		if list, err := ask("-L"); err == nil {
			r.nameInstances(list)
		}
	}
	for i := range r.GPUs {
		if _, ok := s.capabilities[r.GPUs[i].UUID]; ok {
			continue
		}
		if list, err := ask("--query-gpu=uuid,compute_cap", "--format=csv,noheader"); err == nil {
			s.capabilities = map[string]string{}
			for line := range strings.Lines(list) { // GPU-…, 8.0
				if uuid, capability, ok := strings.Cut(line, ","); ok {
					s.capabilities[strings.TrimSpace(uuid)] = known(strings.TrimSpace(capability))
				}
			}
		}
		break
	}
	return r, nil
}

// askSMI returns a function that runs nvidia-smi, or nil if it is not installed. The total time of
// all runs is bounded.
func askSMI(ctx context.Context) (ask func(args ...string) (string, error), stop func()) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil, func() {}
	}
	ctx, stop = context.WithTimeout(ctx, smiLimit)
	return func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.WaitDelay = smiDelay
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that the children of a wrapper end with it
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		b, err := cmd.Output()
		out := string(b)
		switch {
		case ctx.Err() != nil:
			return "", errors.New(silence)
		case err == nil, strings.Contains(out, reportStart): // a report with only some of the GPUs is not a failure
			return out, nil
		case strings.Contains(out, "version mismatch"):
			return out, errors.New(mismatch)
		case strings.TrimSpace(out) == "":
			return out, fmt.Errorf("run nvidia-smi: %w", err)
		}
		first, _, _ := strings.Cut(strings.TrimSpace(out), "\n") // it writes its reasons to standard output
		return out, fmt.Errorf("nvidia-smi says: %s", first)
	}, stop
}

// known returns a value of nvidia-smi, or "" if the value is missing: N/A, or another word in
// brackets.
func known(text string) string {
	if text == "N/A" || strings.HasPrefix(text, "[") {
		return ""
	}
	return text
}
