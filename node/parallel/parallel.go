// Package parallel divides loops over columns among goroutines. A node that runs trials at full
// rate has more runnable goroutines than cores, and the scheduler gives each of them the same share
// of time, in slices of ten milliseconds. A loop that is divided into short parts gets a larger
// share, and each part ends before it is preempted.
package parallel

import "sync"

// Span is the part [Lo,Hi) of a loop.
type Span struct{ Lo, Hi int }

// maxParts bounds the parts of a loop.
const maxParts = 16

// Split divides a loop of n iterations into parts of at least least iterations. The parts depend
// only on the arguments, so that sums of floats do not depend on the machine.
func Split(n, least int) []Span {
	parts := min(max(1, n/max(1, least)), maxParts)
	spans := make([]Span, parts)
	for i := range spans {
		spans[i] = Span{n * i / parts, n * (i + 1) / parts}
	}
	return spans
}

// Each calls do with 0 to n-1, each in a goroutine of its own, and waits for all calls. It panics
// if one of them panics.
func Each(n int, do func(i int)) {
	if n == 1 {
		do(0)
		return
	}
	var all sync.WaitGroup
	var once sync.Once
	var failed any
	for i := range n {
		all.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					once.Do(func() { failed = r })
				}
			}()
			do(i)
		})
	}
	all.Wait()
	if failed != nil {
		panic(failed)
	}
}
