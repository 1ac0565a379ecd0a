package parallel

// radix is how many bits Sort looks at in one pass.
const radix = 11

// Sort gives rows in the order of their keys, those with equal keys as they stand, in linear time
// and in parts of at least so many rows. What is in keys and rows afterwards is not said.
func Sort(keys []uint32, rows []int32, least int) []int32 {
	n := len(rows)
	keys2, rows2 := make([]uint32, n), make([]int32, n)
	spans := Split(n, least)
	counts := make([][1 << radix]int32, len(spans)) // and then where the rows of a part with each digit go
	for shift := 0; shift < 32; shift += radix {
		Each(len(spans), func(p int) {
			count := &counts[p]
			clear(count[:])
			for _, k := range keys[spans[p].Lo:spans[p].Hi] {
				count[k>>shift&(1<<radix-1)]++
			}
		})
		sum, same := int32(0), false
		for digit := range 1 << radix {
			before := sum
			for p := range counts {
				to := &counts[p][digit]
				*to, sum = sum, sum+*to
			}
			same = same || int(sum-before) == n
		}
		if same {
			continue // they all have the same digit
		}
		Each(len(spans), func(p int) {
			count := &counts[p]
			for i := spans[p].Lo; i < spans[p].Hi; i++ {
				to := &count[keys[i]>>shift&(1<<radix-1)]
				keys2[*to], rows2[*to] = keys[i], rows[i]
				*to++
			}
		})
		keys, keys2, rows, rows2 = keys2, keys, rows2, rows
	}
	return rows
}
