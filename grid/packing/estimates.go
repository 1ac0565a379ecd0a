package packing

import (
	"strconv"
	"strings"

	"mlfnode/grid/lazyregexp"
)

// Estimates are what is known of one sweep's trials, in the order in which it became known. At most maxEstimates and maxModels.
type Estimates []Estimate

// maxEstimates bounds what is kept for one sweep. It covers a few models of GPU with a dozen values of an axis each; of an axis with
// more values, those that come later share one estimate.
const maxEstimates = 64

// maxModels bounds the models of GPU that come after these.
const maxModels = 16

// maxDevice bounds what is believed of a device, so that sums do not overflow.
const maxDevice = 1 << 50

// Find gives the estimate for a model of GPU and a value of the axis in measure_by, nil when there is none.
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

// For gives the same, and makes the estimate if there is none; nil when there are too many. Device is the memory of one such GPU.
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

// asked matches how PyTorch, TensorFlow, JAX and CuPy say what they could not allocate.
var asked = lazyregexp.New(`(?i)(?:tried to allocate|trying to allocate|failed to allocate|out of memory allocating) ([0-9][0-9,]*(?:\.[0-9]+)?) ?([KMGT]?)(i?B|bytes)?`)

// Asked finds in a program's last words how many bytes of a device's memory it could not get; 0 when they do not say so.
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
