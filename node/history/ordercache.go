package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// sortTimeout bounds a listing that sorts all of a sweep, including the wait for its turn.
	sortTimeout = time.Minute
	// maxCachedOrders and maxCachedIDs bound the cached orders, and orderTTL how long an unused one
	// stays.
	maxCachedOrders = 4
	maxCachedIDs    = 4 << 20 // 8 bytes each
	orderTTL        = 30 * time.Second
	// maxOrderAge is how long the order of a sweep that still changes serves further pages: they
	// come from different moments anyway.
	maxOrderAge = 5 * time.Second
)

// ErrSlow is the cause with which a listing ends that took too long.
var ErrSlow = errors.New(
	"the listing took longer than a minute. Ask for the first rows only (--limit), or for the order of the index")

// orderCache caches the last orders of whole sweeps, so that somebody who pages through a sorted
// list has it sorted once and not once for each page. The zero value is empty.
type orderCache struct {
	mu      sync.Mutex
	cached  []*cachedOrder // the most recently used is last
	idCount int
}

// cachedOrder is one order.
type cachedOrder struct {
	key     string
	sweep   *sweepSummary // the version that it is the order of
	created time.Time
	ids     []int64
	expiry  *time.Timer
}

// find returns an order that is valid for a sweep as it is now.
func (o *orderCache) find(key string, s *sweepSummary) ([]int64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.cached, func(k *cachedOrder) bool { return k.key == key })
	if i < 0 {
		return nil, false
	}
	k := o.cached[i]
	if k.sweep != s && time.Since(k.created) > maxOrderAge {
		return nil, false
	}
	k.expiry.Reset(orderTTL)
	o.cached = append(slices.Delete(o.cached, i, i+1), k)
	return k.ids, true
}

func (o *orderCache) add(key string, s *sweepSummary, ids []int64) {
	if len(ids) > maxCachedIDs {
		return
	}
	k := &cachedOrder{key: key, sweep: s, created: time.Now(), ids: ids}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropLocked(func(old *cachedOrder) bool { return old.key == key })
	for len(o.cached) > 0 && (len(o.cached) >= maxCachedOrders || o.idCount+len(ids) > maxCachedIDs) {
		oldest := o.cached[0]
		o.dropLocked(func(old *cachedOrder) bool { return old == oldest })
	}
	o.cached, o.idCount = append(o.cached, k), o.idCount+len(ids)
	k.expiry = time.AfterFunc(orderTTL, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dropLocked(func(old *cachedOrder) bool { return old == k })
	})
}

func (o *orderCache) dropLocked(which func(*cachedOrder) bool) {
	o.cached = slices.DeleteFunc(o.cached, func(k *cachedOrder) bool {
		if !which(k) {
			return false
		}
		k.expiry.Stop()
		o.idCount -= len(k.ids)
		return true
	})
}

// clear empties the cache.
func (o *orderCache) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropLocked(func(*cachedOrder) bool { return true })
}

// sortedIDs finds the page of a listing by sorting all rows that it selects, or in a cached order.
// It ends when its reader has gone.
func (l *listing) sortedIDs(ctx context.Context) ([]int64, error) {
	expr, args := l.expression()
	args = slices.Concat(args, args)
	order := l.orderBy(expr) + ", id"
	if l.d.sortLimit == nil {
		return l.ids(ctx, l.condition(l.idRange()), order, l.q.Limit, l.q.Offset, args...)
	}
	key := l.orderKey()
	ids, ok := l.d.orders.find(key, l.sweep)
	if !ok {
		var err error
		ids, err = l.limitSort(ctx, func(ctx context.Context) ([]int64, error) {
			if ids, ok := l.d.orders.find(key, l.sweep); ok { // another request has sorted it in the meantime
				return ids, nil
			}
			ids, err := l.ids(ctx, l.condition(l.idRange()), order, 0, 0, args...)
			if err == nil {
				l.d.orders.add(key, l.sweep, ids)
			}
			return ids, err
		})
		if err != nil {
			return nil, err
		}
	}
	return l.pageOf(ids), nil
}

// orderKey identifies the order of all rows that the listing selects.
func (sel *selection) orderKey() string {
	expr, args := sel.expression()
	return fmt.Sprint(sel.condition(sel.idRange()), sel.orderBy(expr), args)
}

// pageOf returns the page of the listing out of all rows that it selects.
func (sel *selection) pageOf(ids []int64) []int64 {
	n := int64(len(ids))
	from, limit := min(max(sel.q.Offset, 0), n), sel.q.Limit
	if limit <= 0 {
		limit = math.MaxInt64 - n
	}
	return ids[from:min(n, from+limit)]
}

// limitSort calls a function that reads all rows of a sweep. It bounds how many do so at one time,
// and for how long.
func (l *listing) limitSort(ctx context.Context, find func(context.Context) ([]int64, error)) ([]int64, error) {
	if l.d.sortLimit == nil {
		return find(ctx)
	}
	ctx, stop := context.WithTimeoutCause(ctx, sortTimeout, ErrSlow)
	defer stop()
	select {
	case l.d.sortLimit <- struct{}{}:
		defer func() { <-l.d.sortLimit }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ids, err := find(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return ids, err
}
