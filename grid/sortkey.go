package grid

import "math"

// SortKey returns an integer that sorts like value, in ascending or descending order. NaN has no
// key.
func SortKey(value float32, desc bool) uint32 {
	bits := math.Float32bits(value + 0) // turns -0 into 0
	if bits>>31 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 31
	}
	if desc {
		bits = ^bits
	}
	return bits
}
