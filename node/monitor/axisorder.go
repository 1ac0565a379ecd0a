package monitor

import (
	"mlfnode/grid/space"
)

// axisOrder is the trials of a space in the order of the values of one axis, those with the same
// value by index. Which trial stands in a place, and in which place a trial stands, is arithmetic,
// so a page takes the same time of a space of any size.
type axisOrder struct {
	axis     int
	products []space.Product
	values   []int64 // of the axis, by their numbers, in their order
	places   []int32 // of each value in that order
}

// maxRuns bounds the values of an axis times the parts of its space, which a page looks through.
const maxRuns = 1 << 20

// newAxisOrder makes the order of an axis whose values have these places. It is not ok where some
// combinations of values are left out, where values are equal, and where a page would take long, in a
// space that was extended often.
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

// run gives how many neighbouring trials of a product have the same value, and after how many
// trials the values come round again.
func (o *axisOrder) run(p *space.Product) (tail, width int64) {
	tail = 1
	for k := o.axis + 1; k < len(p.Lo); k++ {
		tail *= p.Hi[k] - p.Lo[k]
	}
	return tail, tail * (p.Hi[o.axis] - p.Lo[o.axis])
}

// has gives how many trials of a product have a value.
func (o *axisOrder) has(p *space.Product, value int64) int64 {
	if value < p.Lo[o.axis] || value >= p.Hi[o.axis] {
		return 0
	}
	return p.Count / (p.Hi[o.axis] - p.Lo[o.axis])
}

// through counts the trials with a value up to an index.
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

// firstIndex gives up to limit indexes, those in the order from place n on.
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

// historyCursor gives the place of the first trial behind one with a value and an index.
func (o *axisOrder) place(value, index int64) (n int64) {
	for _, before := range o.values[:o.places[value]] {
		for i := range o.products {
			n += o.has(&o.products[i], before)
		}
	}
	return n + o.through(value, index)
}
