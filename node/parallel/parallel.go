// Package parallel divides loops over columns among goroutines. A node that runs trials at full rate has more goroutines that could run
// than cores, and the scheduler gives each of them the same share of time, in slices of ten milliseconds. A loop in short pieces gets a
// larger share, and its pieces end before they are preempted.
package parallel

import "sync"

// Span is the part [Lo,Hi) of a loop.
type Span struct{ Lo, Hi int }

// most bounds the parts of a loop.
const most = 16

// Split divides a loop of n rounds into parts of at least so many rounds, always in the same way for the same numbers: sums of floats do
// not depend on the machine.
func Split(n, least int) []Span {
	parts := min(max(1, n/max(1, least)), most)
	spans := make([]Span, parts)
	for i := range spans {
		spans[i] = Span{n * i / parts, n * (i + 1) / parts}
	}
	return spans
}

// Each calls do for 0 to n-1, each in a goroutine of its own, and waits for all of them. If one panics, Each does, too.
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
