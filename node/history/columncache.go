package history

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// maxColumnCacheBytes bounds the columns that are cached, and columnCacheTTL how long unused
	// ones stay.
	maxColumnCacheBytes = 64 << 20
	columnCacheTTL      = 5 * time.Second
	// maxColumnSets is the number of cached sets: of a sweep, charts read all blocks, and its
	// estimate of the time left reads some.
	maxColumnSets = 4
)

// columnCache caches the columns that were read last, and orders of their rows: the next chart or
// page of a list mostly needs the same ones. As long as the sweep has no event they are valid as
// they are; later, only blocks that have changed are read again. The zero value is empty.
type columnCache struct {
	mu     sync.Mutex
	sets   []*columnSet // the most recently used is last
	expiry *time.Timer
	ttl    time.Duration // 0 is columnCacheTTL
}

// columnSet holds columns of the same blocks of a sweep. Only orders changes.
type columnSet struct {
	sweep  *sweepSummary // the version at which they were read
	mixed  bool          // rows are from different moments, the version's and later ones
	mark   uint64        // blocks that have changed after this mark may be out of date
	all    *Columns
	orders []cachedColumnOrder // the most recently used is last
}

type cachedColumnOrder struct {
	key   string
	order *columnOrder
}

// isOf reports whether the columns are of a sweep, whatever its version, with a stride.
func (s *columnSet) isOf(sweep *sweepSummary, stride int) bool {
	return s.sweep.ID == sweep.ID && s.sweep.Number == sweep.Number && s.all.Stride == stride
}

// unchanged returns the place in the set of each of some blocks, or -1 if it is not there or has
// changed since. It returns nil for no set.
func (s *columnSet) unchanged(blocks []int64, changes *blockChanges) []int {
	if s == nil {
		return nil
	}
	ids := make([]int64, len(blocks))
	for i, first := range blocks {
		ids[i] = rowID(s.sweep.Number, first) >> blockBits
	}
	changed := changes.changedSince(s.mark, ids)
	places, next := make([]int, len(blocks)), 0 // both lists ascend
	for i, first := range blocks {
		for next < len(s.all.Blocks) && s.all.Blocks[next] < first {
			next++
		}
		if places[i] = -1; next < len(s.all.Blocks) && s.all.Blocks[next] == first && !changed[i] {
			places[i] = next
		}
	}
	return places
}

func (s *columnSet) bytes() int {
	n := len(s.all.State) * (smallBytes/blockTrials + 4*len(s.all.Values))
	for _, o := range s.orders {
		n += 4 * (len(o.order.rows) + len(o.order.missing))
	}
	return n
}

// fill adds cached columns of a sweep to columns of the same blocks, and returns which of the
// wanted ones are missing, a set of an earlier moment that may have most of their values, nil for
// none, and the mark of the columns that it has added.
func (k *columnCache) fill(
	s *sweepSummary, c *Columns, wanted []Column,
) (missing []Column, earlier *columnSet, mark uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.useLocked(func(set *columnSet) bool { return set.isOf(s, c.Stride) })
	if set == nil || set.sweep != s || set.mixed {
		missing = []Column{columnSmall}
		for _, w := range wanted { // without duplicates: a goroutine reads each column
			if !slices.Contains(missing, w) {
				missing = append(missing, w)
			}
		}
		return missing, set, math.MaxUint64
	}
	all := set.all
	c.smallColumns = all.smallColumns
	for _, w := range wanted {
		if values, ok := all.Values[w]; ok {
			c.Values[w], c.exact[w] = values, all.exact[w]
		} else if !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing, nil, set.mark
}

// useLocked returns the cached set that is meant, nil for none.
func (k *columnCache) useLocked(meant func(*columnSet) bool) *columnSet {
	i := slices.IndexFunc(k.sets, meant)
	if i < 0 {
		return nil
	}
	set := k.sets[i]
	k.sets = append(slices.Delete(k.sets, i, i+1), set)
	k.expiry.Reset(cmp.Or(k.ttl, columnCacheTTL))
	return set
}

// add caches columns of a sweep beside those of the same version that are cached.
func (k *columnCache) add(s *sweepSummary, c *Columns, mark uint64, mixed bool) {
	set := &columnSet{sweep: s, mixed: mixed, mark: mark, all: &Columns{
		Blocks: c.Blocks, Stride: c.Stride, smallColumns: c.smallColumns,
		Values: maps.Clone(c.Values), exact: maps.Clone(c.exact),
	}}
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.sets, func(old *columnSet) bool { return old.isOf(s, c.Stride) })
	if i >= 0 {
		if old := k.sets[i]; old.sweep == s && !old.mixed && !mixed {
			maps.Copy(set.all.Values, old.all.Values)
			maps.Copy(set.all.exact, old.all.exact)
			set.mark, set.orders = min(mark, old.mark), old.orders
		}
		k.sets = slices.Delete(k.sets, i, i+1)
	}
	k.sets = append(k.sets, set)
	k.evictLocked()
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.expiry = time.AfterFunc(cmp.Or(k.ttl, columnCacheTTL), k.clear)
}

// order returns the order with a key of the rows of some columns; nil when it is not cached.
func (k *columnCache) order(c *Columns, key string) *columnOrder {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.useLocked(func(set *columnSet) bool { return set.holds(c) })
	if set == nil {
		return nil
	}
	i := slices.IndexFunc(set.orders, func(o cachedColumnOrder) bool { return o.key == key })
	if i < 0 {
		return nil
	}
	o := set.orders[i]
	set.orders = append(slices.Delete(set.orders, i, i+1), o)
	return o.order
}

// addOrder caches an order beside the columns that it is of, if those are cached.
func (k *columnCache) addOrder(c *Columns, key string, o *columnOrder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := k.useLocked(func(set *columnSet) bool { return set.holds(c) })
	if set == nil {
		return
	}
	set.orders = slices.DeleteFunc(set.orders, func(o cachedColumnOrder) bool { return o.key == key })
	set.orders = append(set.orders, cachedColumnOrder{key, o})
	k.evictLocked()
}

// holds reports whether the columns are the set's.
func (s *columnSet) holds(c *Columns) bool {
	return len(c.State) > 0 && len(s.all.State) > 0 && &c.State[0] == &s.all.State[0]
}

// evictLocked drops the least recently used sets, and orders of the last one, while the cache is
// too large.
func (k *columnCache) evictLocked() {
	total := 0
	for i := len(k.sets) - 1; i >= 0; i-- {
		set := k.sets[i]
		for total+set.bytes() > maxColumnCacheBytes && len(set.orders) > 0 {
			set.orders = set.orders[1:]
		}
		if total += set.bytes(); total > maxColumnCacheBytes || len(k.sets)-i > maxColumnSets {
			k.sets = slices.Delete(k.sets, 0, i+1)
			return
		}
	}
}

// clear empties the cache.
func (k *columnCache) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.sets = nil
}
