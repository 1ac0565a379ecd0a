package history

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// maxColumnCacheBytes bounds the columns that are cached, and columnCacheTTL how long unused
	// ones stay.
	maxColumnCacheBytes = 64 << 20
	columnCacheTTL      = 5 * time.Second
)

// columnCache caches the columns of a sweep that were read last, and orders of its rows by them:
// the next chart or page of a list mostly needs the same ones. They are valid as long as the sweep
// has no event. The zero value is empty.
type columnCache struct {
	mu     sync.Mutex
	sweep  *sweepSummary // the version that the columns are of
	all    *Columns
	orders []cachedColumnOrder // the most recently used is last
	expiry *time.Timer
	ttl    time.Duration // 0 is columnCacheTTL
}

type cachedColumnOrder struct {
	key   string
	order *columnOrder
}

func (k *columnCache) timeToLive() time.Duration { return cmp.Or(k.ttl, columnCacheTTL) }

// fill adds cached columns of a sweep to columns of the same blocks, and returns which of the
// wanted ones are missing.
func (k *columnCache) fill(s *sweepSummary, c *Columns, wanted []Column) (missing []Column) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sweep != s || k.all.Stride != c.Stride {
		missing = []Column{columnSmall}
		for _, w := range wanted { // without duplicates: a goroutine reads each column
			if !slices.Contains(missing, w) {
				missing = append(missing, w)
			}
		}
		return missing
	}
	k.expiry.Reset(k.timeToLive())
	c.State, c.Attempts, c.Class, c.Cause, c.Node = k.all.State, k.all.Attempts, k.all.Class, k.all.Cause, k.all.Node
	for _, w := range wanted {
		if values, ok := k.all.Values[w]; ok {
			c.Values[w], c.exact[w] = values, k.all.exact[w]
		} else if !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// add caches columns of a sweep beside those of it that are cached.
func (k *columnCache) add(s *sweepSummary, c *Columns) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := &Columns{
		Stride: c.Stride, State: c.State, Attempts: c.Attempts, Class: c.Class, Cause: c.Cause, Node: c.Node,
		Values: maps.Clone(c.Values), exact: maps.Clone(c.exact),
	}
	if k.sweep == s && k.all.Stride == c.Stride {
		for w, values := range k.all.Values {
			all.Values[w], all.exact[w] = values, k.all.exact[w]
		}
	}
	if len(all.State)*(smallBytes/blockTrials+4*len(all.Values)) > maxColumnCacheBytes {
		return
	}
	var orders []cachedColumnOrder
	if k.sweep == s && k.all.Stride == c.Stride {
		orders = k.orders
	}
	k.clearLocked()
	k.sweep, k.all, k.orders = s, all, orders
	k.evictOrdersLocked()
	k.expiry = time.AfterFunc(k.timeToLive(), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.all == all {
			k.clearLocked()
		}
	})
}

// order returns the order with a key of the rows of some columns; nil when it is not cached.
func (k *columnCache) order(c *Columns, key string) *columnOrder {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.orders, func(o cachedColumnOrder) bool { return o.key == key })
	if i < 0 || !k.containsLocked(c) {
		return nil
	}
	o := k.orders[i]
	k.orders = append(slices.Delete(k.orders, i, i+1), o)
	return o.order
}

// addOrder caches an order beside the columns that it is of, if those are cached.
func (k *columnCache) addOrder(c *Columns, key string, o *columnOrder) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.containsLocked(c) {
		k.orders = append(slices.DeleteFunc(k.orders, func(o cachedColumnOrder) bool { return o.key == key }), cachedColumnOrder{key, o})
		k.evictOrdersLocked()
	}
}

// containsLocked reports whether the columns are the cached ones.
func (k *columnCache) containsLocked(c *Columns) bool {
	return k.sweep != nil && len(c.State) > 0 && len(k.all.State) > 0 && &c.State[0] == &k.all.State[0]
}

// evictOrdersLocked drops the least recently used orders when the cache is too large.
func (k *columnCache) evictOrdersLocked() {
	bytes := len(k.all.State) * (smallBytes/blockTrials + 4*len(k.all.Values))
	for i := len(k.orders) - 1; i >= 0; i-- {
		o := k.orders[i].order
		if bytes += 4 * (len(o.rows) + len(o.missing)); bytes > maxColumnCacheBytes {
			k.orders = slices.Delete(k.orders, 0, i+1)
			return
		}
	}
}

// clear empties the cache.
func (k *columnCache) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clearLocked()
}

func (k *columnCache) clearLocked() {
	if k.expiry != nil {
		k.expiry.Stop()
	}
	k.sweep, k.all, k.orders, k.expiry = nil, nil, nil, nil
}
