package grid

import "math"

// SortKey returns a whole number that goes before others as a value does, in ascending or descending order. NaN has none.
func SortKey(value float32, desc bool) uint32 {
	bits := math.Float32bits(value + 0) // -0 is 0
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
