package monitor

import (
	"mlfnode/grid/space"
)

// axisOrder orders the trials of a space by the values of one axis; trials with the same value are
// ordered by index. Finding the trial at a position, and the position of a trial, is arithmetic, so
// a page takes the same time in a space of any size.
type axisOrder struct {
	axis     int
	products []space.Product
	values   []int64 // of the axis, by their numbers, in their order
	places   []int32 // of each value in that order
}

// maxRuns bounds the number of values of an axis times the number of products of its space: a page
// iterates over all of these.
const maxRuns = 1 << 20

// newAxisOrder returns the order of an axis whose values have the given places. It is not ok if the
// space excludes combinations of values, if two values are equal, or if a page would take long
// because the space has been extended often.
func newAxisOrder(s space.Space, axis int, places []int32) (o *axisOrder, ok bool) {
	o = &axisOrder{axis: axis, products: s.Products(), values: make([]int64, len(places)), places: places}
	if len(o.products)*len(places) > maxRuns {
		return nil, false
	}
	for _, p := range o.products {
		if !p.Whole {
			return nil, false
		}
	}
	seen := make([]bool, len(places))
	for value, place := range places {
		if seen[place] {
			return nil, false
		}
		seen[place], o.values[place] = true, int64(value)
	}
	return o, true
}

// run returns how many consecutive trials of a product have the same value, and the number of
// trials after which the values repeat.
func (o *axisOrder) run(p *space.Product) (tail, width int64) {
	tail = 1
	for k := o.axis + 1; k < len(p.Lo); k++ {
		tail *= p.Hi[k] - p.Lo[k]
	}
	return tail, tail * (p.Hi[o.axis] - p.Lo[o.axis])
}

// has returns how many trials of a product have a value.
func (o *axisOrder) has(p *space.Product, value int64) int64 {
	if value < p.Lo[o.axis] || value >= p.Hi[o.axis] {
		return 0
	}
	return p.Count / (p.Hi[o.axis] - p.Lo[o.axis])
}

// through counts the trials with a value whose index is at most index.
func (o *axisOrder) through(value, index int64) (n int64) {
	for i := range o.products {
		p := &o.products[i]
		all, at := o.has(p, value), index-p.Start
		switch {
		case at < 0:
			return n
		case at >= p.Count || all == 0:
			n += all
		default:
			tail, width := o.run(p)
			n += at/width*tail + min(tail, max(0, at%width+1-(value-p.Lo[o.axis])*tail))
		}
	}
	return n
}

// from returns up to limit indexes, starting at position n of the order.
func (o *axisOrder) from(n, limit int64) (indexes []int64) {
	for _, value := range o.values {
		for i := range o.products {
			p := &o.products[i]
			all := o.has(p, value)
			tail, width := o.run(p)
			for ; n < all && limit > 0; n, limit = n+1, limit-1 {
				indexes = append(indexes, p.Start+n/tail*width+(value-p.Lo[o.axis])*tail+n%tail)
			}
			if limit == 0 {
				return indexes
			}
			n -= all
		}
	}
	return indexes
}

// place returns the position that follows the trial with a value and an index.
func (o *axisOrder) place(value, index int64) (n int64) {
	for _, before := range o.values[:o.places[value]] {
		for i := range o.products {
			n += o.has(&o.products[i], before)
		}
	}
	return n + o.through(value, index)
}
