package grid

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"mlfnode/grid/problem"
)

// Milli is an amount in thousandths, so that sums of fractions are exact: eight times 0.125 is one.
// In JSON it is a decimal number, such as 0.125.
type Milli int64

// One is one whole processor or device.
const One Milli = 1000

// MaxMilli is the largest amount. Larger amounts are decoded as just beyond it, so that a record
// stays readable and Check rejects it.
const MaxMilli Milli = maxAmount * 1000

// ParseMilli parses a decimal number such as 0.125 and rounds it to thousandths. It never rounds a
// positive amount to zero.
func ParseMilli(text string) (Milli, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(v, 0) || math.IsNaN(v) || strings.ContainsAny(text, "xXpP_") {
		return 0, fmt.Errorf("%.40q is not a decimal number", text)
	}
	return MilliOf(v), nil
}

// MilliOf converts v to thousandths, with the rounding of ParseMilli.
func MilliOf(v float64) Milli {
	m := math.Round(min(max(v*1000, -1), float64(MaxMilli)+1))
	if m == 0 && v > 0 {
		return 1
	}
	return Milli(m)
}

// Float returns the amount as a number of processors or devices.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String returns the shortest decimal form: 1, 0.5, 0.125.
func (m Milli) String() string { return string(m.append(nil)) }

func (m Milli) append(to []byte) []byte { return strconv.AppendFloat(to, m.Float(), 'f', -1, 64) }

// MarshalJSON encodes a decimal number.
func (m Milli) MarshalJSON() ([]byte, error) { return m.append(nil), nil }

// UnmarshalJSON decodes a decimal number. An amount out of range becomes one that Check rejects.
func (m *Milli) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	v, err := ParseMilli(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

// Resources is what one attempt reserves on its node.
type Resources struct {
	CPUs Milli `json:"cpus"` // processors, possibly a fraction
	// Bytes, reserved and, if cgroups allow it, enforced; 0 reserves none.
	Memory int64 `json:"memory,omitempty"`
	// Less than One: a share of one device; otherwise a number of whole devices.
	GPUs Milli `json:"gpus,omitempty"`
	// Bytes on each device; if GPUs is 0, a proportional share of one device.
	GPUMemory  int64  `json:"gpu_memory,omitempty"`
	GPUProfile string `json:"gpu_profile,omitempty"` // MIG profile of the instance, for example 1g.10gb
	GPUModel   string `json:"gpu_model,omitempty"`   // substring of the device's name, for example A100

	Nodes NodeSet `json:"nodes,omitempty"` // nodes that can run the attempt
}

// GPUMemoryAuto, as a value of GPUMemory, requests that the GPU memory of trials is measured, so
// that several trials share a GPU.
const GPUMemoryAuto = -1

// Measured reports whether trials share GPUs according to their measured use.
func (r Resources) Measured() bool { return r.GPUMemory == GPUMemoryAuto }

// Initial returns what a trial reserves before there is a measurement: one whole device if memory
// is measured.
func (r Resources) Initial() Resources {
	if r.Measured() {
		r.GPUs, r.GPUMemory = One, 0
	}
	return r
}

// Shares reports whether a trial gets part of a device.
func (r Resources) Shares() bool {
	return r.GPUProfile == "" && r.GPUs < One && r.NeedsGPU()
}

// NeedsGPU reports whether a trial needs a device or part of one.
func (r Resources) NeedsGPU() bool { return r.GPUs > 0 || r.GPUMemory != 0 || r.GPUProfile != "" }

// WholeGPUs returns the number of whole devices that a trial needs: 0 if it needs none or a share.
func (r Resources) WholeGPUs() int {
	if r.GPUProfile != "" {
		return 1
	}
	return int(r.GPUs / One)
}

// Key returns a string that identifies the resources: it is equal exactly for equal resources.
func (r Resources) Key() string {
	key := fmt.Sprintf("c%d_m%d_g%d_v%d_%q_%q", r.CPUs, r.Memory, r.GPUs, r.GPUMemory, r.GPUProfile, r.GPUModel)
	if r.Nodes != "" {
		key += fmt.Sprintf("_%q", r.Nodes)
	}
	return key
}

// Check returns an error if no trial can reserve these resources.
func (r Resources) Check() error {
	if r.CPUs <= 0 {
		return problem.Errorf("Give the cores that one trial uses, like 1 or 0.5.", "cpus is %s", r.CPUs)
	}
	for what, v := range map[string]Milli{"cpus": r.CPUs, "gpus": r.GPUs} {
		if v < 0 || v > MaxMilli {
			return problem.Errorf("Give a number like 1 or 0.5.", "%s is %s, which is not a valid number", what, v)
		}
	}
	for what, v := range map[string]int64{"memory": r.Memory, "gpu_memory": r.GPUMemory} {
		if v < 0 && !(what == "gpu_memory" && r.Measured()) {
			return problem.Errorf("Write it like 1GiB, 500MB or as bytes.", "%s is %d, which is not a size", what, v)
		}
	}
	for what, text := range map[string]string{"gpu_profile": r.GPUProfile, "gpu_model": r.GPUModel} {
		if err := CheckLabel(what, text); err != nil {
			return err
		}
	}
	if err := r.Nodes.Check(); err != nil {
		return err
	}
	switch {
	case r.GPUs > One && r.GPUs%One != 0:
		return problem.Errorf("Give a whole number, or a fraction below 1 for a share of one GPU.",
			"gpus is %s: above 1 it must be a whole number", r.GPUs)
	case r.GPUProfile != "" && r.GPUs != 0 && r.GPUs != One:
		return problem.Errorf("Leave gpus out: a program sees one MIG instance.",
			"gpu_profile names a MIG instance, and gpus is %s", r.GPUs)
	case r.Measured() && (r.GPUs != 0 || r.GPUProfile != ""):
		return problem.Errorf("Leave gpus and gpu_profile out.",
			"gpu_memory is auto: trials share single GPUs, and get a whole one until that is measured")
	case r.GPUModel != "" && !r.NeedsGPU():
		return problem.Errorf("Give gpus, like 1 or 0.5.", "gpu_model is %q, but no GPU is asked for", r.GPUModel)
	}
	return nil
}
