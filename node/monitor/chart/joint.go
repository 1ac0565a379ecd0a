package chart

import "mlfnode/node/parallel"

// factor is a column of levels; consecutive levels may be merged.
type factor struct {
	levels []uint8
	merged [maxLevels]int32 // the merged level of each level
	size   int              // after merging
}

// newFactor makes a factor of a column with a number of levels, and merges them to a maximum
// number.
func newFactor(levels []uint8, n, most int) factor {
	f := factor{levels: levels, size: min(n, most)}
	for l := range n {
		f.merged[l] = int32(l * f.size / n)
	}
	return f
}

// factors returns the axes as factors, with their levels merged to a maximum number.
func (t *trials) factors(most int) []factor {
	all := make([]factor, len(t.axes))
	for a, axis := range t.axes {
		all[a] = newFactor(t.levels[a], len(axis.Levels), most)
	}
	return all
}

// joint numbers the combinations of the levels of some factors: one pass over rows that sums up by
// combination also sums up by each of the factors, and by each pair of them.
type joint struct {
	factors []factor
	places  []int // among the factors that it was made from
	steps   []int // from one level of a factor to the next
	size    int
}

// maxJoint bounds the combinations, so that their sums stay in the fast memory of a core.
const maxJoint = maxLevels * maxLevels

// cover makes joints such that each of these pairs of factors is in one of them; a pair may consist
// of the same factor twice.
func cover(all []factor, pairs [][2]int) (joints []*joint) {
	done := make([]bool, len(pairs))
	covered := func(places []int, more int) (n int) {
		for i, p := range pairs {
			if !done[i] && has(places, more, p[0]) && has(places, more, p[1]) {
				n++
			}
		}
		return n
	}
	for i, p := range pairs {
		if done[i] {
			continue
		}
		j := &joint{size: 1}
		for next := p[0]; next >= 0; {
			j.places, j.factors, j.steps = append(j.places, next), append(j.factors, all[next]), append(j.steps, j.size)
			j.size *= all[next].size
			if next = -1; !has(j.places, -1, p[1]) {
				next = p[1]
				continue
			}
			most := covered(j.places, -1)
			for k := range all {
				if n := covered(j.places, k); n > most && j.size*all[k].size <= maxJoint {
					next, most = k, n
				}
			}
		}
		for i, p := range pairs {
			done[i] = done[i] || has(j.places, -1, p[0]) && has(j.places, -1, p[1])
		}
		joints = append(joints, j)
	}
	return joints
}

func has(places []int, more, wanted int) bool {
	for _, p := range places {
		if p == wanted {
			return true
		}
	}
	return more == wanted
}

// chunk is the number of rows that are looked up at a time.
const chunk = 256

// cells returns the combination of each of up to chunk rows.
func (j *joint) cells(rows []int32, dest *[chunk]int32) []int32 {
	cells := dest[:len(rows)]
	clear(cells)
	for k := range j.factors {
		var offsets [maxLevels]int32
		for l, m := range j.factors[k].merged {
			offsets[l] = m * int32(j.steps[k])
		}
		levels := j.factors[k].levels
		for i, r := range rows {
			cells[i] += offsets[levels[r]%maxLevels]
		}
	}
	return cells
}

// level returns the level of a factor in a combination. The factor is given by its position among
// those that the joint was made from; the level is -1 if the joint does not contain it.
func (j *joint) level(cell, place int) int {
	for k, p := range j.places {
		if p == place {
			return cell / j.steps[k] % j.factors[k].size
		}
	}
	return -1
}

// eachCell calls fn with consecutive rows and their combinations in a joint, for each joint and all
// rows, in several goroutines. Calls for the same part of the rows are sequential. Before that, it
// calls begin for each joint, with the number of parts.
func eachCell(
	joints []*joint, rows []int32, begin func(joint, parts int), fn func(joint, part int, rows, cells []int32),
) {
	spans := parallel.Split(len(rows), leastRows)
	for j := range joints {
		begin(j, len(spans))
	}
	parallel.Each(len(joints)*len(spans), func(i int) {
		j, part := i/len(spans), i%len(spans)
		var dest [chunk]int32
		for lo, hi := spans[part].Lo, spans[part].Hi; lo < hi; lo += chunk {
			some := rows[lo:min(lo+chunk, hi)]
			fn(j, part, some, joints[j].cells(some, &dest))
		}
	})
}

// pairSums are the sums of a value by the combinations of levels of pairs of factors.
type pairSums struct {
	n   []int64 // by level of the second factor, then of the first
	sum []float64
}

// sumPairs sums up y by pairs of factors, over the rows that have a value.
func sumPairs(all []factor, pairs [][2]int, rows []int32, y []float32) []pairSums {
	joints := cover(all, pairs)
	parts := make([][][]cell, len(joints))
	eachCell(joints, rows, func(j, n int) {
		for range n {
			parts[j] = append(parts[j], make([]cell, joints[j].size))
		}
	}, func(j, part int, rows, cells []int32) {
		sums := parts[j][part]
		for i, r := range rows {
			if f := y[r]; f == f {
				c := &sums[cells[i]]
				c.n++
				c.sum += float64(f)
			}
		}
	})
	out := make([]pairSums, len(pairs))
	for i, p := range pairs {
		nx, ny := all[p[0]].size, all[p[1]].size
		out[i] = pairSums{make([]int64, nx*ny), make([]float64, nx*ny)}
		for j := range joints {
			if !has(joints[j].places, -1, p[0]) || !has(joints[j].places, -1, p[1]) {
				continue
			}
			for _, sums := range parts[j] {
				for at, c := range sums {
					if c.n > 0 {
						k := joints[j].level(at, p[1])*nx + joints[j].level(at, p[0])
						out[i].n[k] += int64(c.n)
						out[i].sum[k] += c.sum
					}
				}
			}
			break
		}
	}
	return out
}
