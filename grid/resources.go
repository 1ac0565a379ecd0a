package grid

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"mlfnode/grid/problem"
)

// Milli is an amount in thousandths, so that sums of fractions are exact: eight times 0.125 is one. JSON has it as a decimal
// number, 0.125.
type Milli int64

// One is one whole processor or device.
const One Milli = 1000

// MaxMilli is the largest amount; what is read beyond it counts as just beyond, so that a record stays readable and Check refuses it.
const MaxMilli Milli = maxAmount * 1000

// ParseMilli reads a decimal number such as 0.125, rounded to thousandths. What is more than nothing is never rounded to nothing.
func ParseMilli(text string) (Milli, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(v, 0) || math.IsNaN(v) || strings.ContainsAny(text, "xXpP_") {
		return 0, fmt.Errorf("%.40q is not a decimal number", text)
	}
	return MilliOf(v), nil
}

// MilliOf returns an amount in thousandths, rounded as ParseMilli rounds it.
func MilliOf(v float64) Milli {
	m := math.Round(min(max(v*1000, -1), float64(MaxMilli)+1))
	if m == 0 && v > 0 {
		return 1
	}
	return Milli(m)
}

// Float returns the amount as a number of processors or devices.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String returns the shortest decimal number: 1, 0.5, 0.125.
func (m Milli) String() string { return string(m.append(nil)) }

func (m Milli) append(to []byte) []byte { return strconv.AppendFloat(to, m.Float(), 'f', -1, 64) }

// MarshalJSON writes a decimal number.
func (m Milli) MarshalJSON() ([]byte, error) { return m.append(nil), nil }

// UnmarshalJSON reads a decimal number. An amount that is out of range is read as one that Check refuses.
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

// Resources are what one attempt reserves on its node.
type Resources struct {
	CPUs       Milli  `json:"cpus"`                  // processors; a fraction is allowed
	Memory     int64  `json:"memory,omitempty"`      // bytes, reserved and, where cgroups allow, enforced; 0 reserves none
	GPUs       Milli  `json:"gpus,omitempty"`        // below One: a share of one device; else that many whole devices
	GPUMemory  int64  `json:"gpu_memory,omitempty"`  // bytes on each device; without GPUs: a share of one device in proportion
	GPUProfile string `json:"gpu_profile,omitempty"` // MIG profile of the instance, like 1g.10gb
	GPUModel   string `json:"gpu_model,omitempty"`   // text that occurs in the device's name, like A100

	Nodes NodeSet `json:"nodes,omitempty"` // nodes that may run it
}

// GPUMemoryAuto as GPUMemory has it measured how much memory of a GPU the trials need, so that several share one.
const GPUMemoryAuto = -1

// Measured reports whether trials share GPUs by what they are measured to use.
func (r Resources) Measured() bool { return r.GPUMemory == GPUMemoryAuto }

// Initial returns what a trial reserves while nothing is measured yet: one whole device where that is to be done.
func (r Resources) Initial() Resources {
	if r.Measured() {
		r.GPUs, r.GPUMemory = One, 0
	}
	return r
}

// Shares reports whether a trial gets a part of a device.
func (r Resources) Shares() bool {
	return r.GPUProfile == "" && r.GPUs < One && r.NeedsGPU()
}

// NeedsGPU reports whether a trial needs a device or a part of one.
func (r Resources) NeedsGPU() bool { return r.GPUs > 0 || r.GPUMemory != 0 || r.GPUProfile != "" }

// WholeGPUs is how many whole devices a trial needs; 0 when it needs none or a share of one.
func (r Resources) WholeGPUs() int {
	if r.GPUProfile != "" {
		return 1
	}
	return int(r.GPUs / One)
}

// Key is a text that is the same for equal resources, and for those only.
func (r Resources) Key() string {
	key := fmt.Sprintf("c%d_m%d_g%d_v%d_%q_%q", r.CPUs, r.Memory, r.GPUs, r.GPUMemory, r.GPUProfile, r.GPUModel)
	if r.Nodes != "" {
		key += fmt.Sprintf("_%q", r.Nodes)
	}
	return key
}

// Check says why no trial can reserve so much.
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
		return problem.Errorf("Give a whole number, or a fraction below 1 for a share of one GPU.", "gpus is %s: above 1 it must be a whole number", r.GPUs)
	case r.GPUProfile != "" && r.GPUs != 0 && r.GPUs != One:
		return problem.Errorf("Leave gpus out: a program sees one MIG instance.", "gpu_profile names a MIG instance, and gpus is %s", r.GPUs)
	case r.Measured() && (r.GPUs != 0 || r.GPUProfile != ""):
		return problem.Errorf("Leave gpus and gpu_profile out.", "gpu_memory is auto: trials share single GPUs, and get a whole one until that is measured")
	case r.GPUModel != "" && !r.NeedsGPU():
		return problem.Errorf("Give gpus, like 1 or 0.5.", "gpu_model is %q, but no GPU is asked for", r.GPUModel)
	}
	return nil
}

// LaneOf returns the lane of trials with these resources and this image. Trials of one lane need the same, and no two lanes have one
// name: with processors and memory alone the amounts are the name, as they have always been; else it ends in a hash of everything.
func LaneOf(priority int, r Resources, image string) Lane {
	if !r.NeedsGPU() && r.GPUModel == "" && image == "" && r.Nodes == "" {
		return Lane(fmt.Sprintf("p%d_c%d_m%d_g0_v0", priority, r.CPUs, r.Memory))
	}
	sum := sha256.Sum256([]byte(r.Key() + "\n" + image))
	return Lane(fmt.Sprintf("p%d_%s", priority, hex.EncodeToString(sum[:8])))
}
