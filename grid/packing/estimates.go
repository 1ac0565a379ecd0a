package packing

import (
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
)

// Estimates are the estimates of one sweep, in the order in which they were first made. There are
// at most maxEstimates, plus maxModels.
type Estimates []Estimate

// maxEstimates bounds the estimates of one sweep. It suffices for a few models of GPU with a dozen
// values of an axis each; if an axis has more values, the later ones share one estimate.
const maxEstimates = 64

// maxModels bounds the further models of GPU.
const maxModels = 16

// maxDevice bounds the plausible memory of a device, so that sums do not overflow.
const maxDevice = 1 << 50

// Find returns the estimate for a model of GPU and a value of the axis in measure_by, or nil.
func (all Estimates) Find(model, value string) *Estimate {
	for _, v := range [...]string{value, ""} {
		for i := range all {
			if all[i].Model == model && all[i].Value == v {
				return &all[i]
			}
		}
	}
	return nil
}

// For is like Find, but adds the estimate if there is none. It returns nil if there are too many.
// device is the memory of one such GPU.
func (all *Estimates) For(model, value string, device int64) *Estimate {
	e := all.Find(model, value)
	if e == nil || e.Value != value && len(*all) < maxEstimates {
		if len(*all) >= maxEstimates {
			value = ""
		}
		if len(*all) >= maxEstimates+maxModels {
			return nil
		}
		*all = append(*all, Estimate{Model: model, Value: value})
		e = &(*all)[len(*all)-1]
	}
	if device > 0 {
		e.Device = min(device, maxDevice)
	}
	return e
}

// asked matches the messages of PyTorch, TensorFlow, JAX and CuPy about a failed allocation.
var asked = lazyregexp.New(`(?i)(?:tried to allocate|trying to allocate|failed to allocate|out of memory allocating) ([0-9][0-9,]*(?:\.[0-9]+)?) ?([KMGT]?)(i?B|bytes)?`)

// Asked returns how many bytes of device memory a program failed to allocate, according to its last
// output, or 0 if unknown.
func Asked(words string) int64 {
	all := asked.Get().FindAllStringSubmatch(words, -1)
	if len(all) == 0 {
		return 0
	}
	m := all[len(all)-1]
	v, err := strconv.ParseFloat(strings.ReplaceAll(m[1], ",", ""), 64)
	if err != nil {
		return 0
	}
	for range strings.Index("KMGT", strings.ToUpper(m[2])) + min(len(m[2]), 1) {
		v *= 1024
	}
	return int64(min(v, maxDevice))
}
