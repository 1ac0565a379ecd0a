package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

const (
	// sortTime bounds a listing that sorts all of a sweep, with the wait for its turn.
	sortTime = time.Minute
	// keptOrders and keptIDs bound the orders that are kept, and keptFor says how long one is that nobody asks for.
	keptOrders = 4
	keptIDs    = 4 << 20 // 8 bytes each
	keptFor    = 30 * time.Second
	// freshFor is how long the order of a sweep that goes on is good for further pages: they come from different moments anyway.
	freshFor = 5 * time.Second
)

// ErrSlow is the cause with which a listing ends that took too long.
var ErrSlow = errors.New("the listing took longer than a minute. Ask for the first rows only (--limit), or for the order of the index")

// orders keeps the last orders of whole sweeps, so that somebody who pages through a sorted list has it sorted once and not once for each
// page. The zero value keeps none yet.
type orders struct {
	mu   sync.Mutex
	kept []*kept // the one that was used last at the end
	ids  int
}

// kept is one order.
type kept struct {
	key   string
	sweep *sweep // as it was
	made  time.Time
	ids   []int64
	gone  *time.Timer
}

// find gives an order that is good for a sweep as it is now.
func (o *orders) find(key string, s *sweep) ([]int64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.kept, func(k *kept) bool { return k.key == key })
	if i < 0 {
		return nil, false
	}
	k := o.kept[i]
	if k.sweep != s && time.Since(k.made) > freshFor {
		return nil, false
	}
	k.gone.Reset(keptFor)
	o.kept = append(slices.Delete(o.kept, i, i+1), k)
	return k.ids, true
}

func (o *orders) keep(key string, s *sweep, ids []int64) {
	if len(ids) > keptIDs {
		return
	}
	k := &kept{key: key, sweep: s, made: time.Now(), ids: ids}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropLocked(func(old *kept) bool { return old.key == key })
	for len(o.kept) > 0 && (len(o.kept) >= keptOrders || o.ids+len(ids) > keptIDs) {
		oldest := o.kept[0]
		o.dropLocked(func(old *kept) bool { return old == oldest })
	}
	o.kept, o.ids = append(o.kept, k), o.ids+len(ids)
	k.gone = time.AfterFunc(keptFor, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.dropLocked(func(old *kept) bool { return old == k })
	})
}

func (o *orders) dropLocked(which func(*kept) bool) {
	o.kept = slices.DeleteFunc(o.kept, func(k *kept) bool {
		if !which(k) {
			return false
		}
		k.gone.Stop()
		o.ids -= len(k.ids)
		return true
	})
}

// clear forgets all.
func (o *orders) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropLocked(func(*kept) bool { return true })
}

// sortedIDs finds the page of a listing by sorting all rows that it selects, or in an order that is kept. One whose reader has gone ends.
func (l *list) sortedIDs(ctx context.Context) ([]int64, error) {
	expr, args := l.expression()
	args = slices.Concat(args, args)
	order := l.orderBy(expr) + ", id"
	if l.d.costs == nil {
		return l.ids(ctx, l.where(l.bounds()), order, l.q.Limit, l.q.Offset, args...)
	}
	key := l.orderKey()
	ids, ok := l.d.orders.find(key, l.sweep)
	if !ok {
		var err error
		ids, err = l.inTurn(ctx, func(ctx context.Context) ([]int64, error) {
			if ids, ok := l.d.orders.find(key, l.sweep); ok { // another request sorted it meanwhile
				return ids, nil
			}
			ids, err := l.ids(ctx, l.where(l.bounds()), order, 0, 0, args...)
			if err == nil {
				l.d.orders.keep(key, l.sweep, ids)
			}
			return ids, err
		})
		if err != nil {
			return nil, err
		}
	}
	return l.part(ids), nil
}

// orderKey names the order of all rows that the listing selects.
func (l *list) orderKey() string {
	expr, args := l.expression()
	return fmt.Sprint(l.where(l.bounds()), l.orderBy(expr), args)
}

// part gives the page of the listing out of all rows that it selects.
func (l *list) part(ids []int64) []int64 {
	n := int64(len(ids))
	from, limit := min(max(l.q.Offset, 0), n), l.q.Limit
	if limit <= 0 {
		limit = math.MaxInt64 - n
	}
	return ids[from:min(n, from+limit)]
}

// inTurn calls what looks at all rows of a sweep. Listings take turns with that, and it is bounded in time.
func (l *list) inTurn(ctx context.Context, find func(context.Context) ([]int64, error)) ([]int64, error) {
	if l.d.costs == nil {
		return find(ctx)
	}
	ctx, stop := context.WithTimeoutCause(ctx, sortTime, ErrSlow)
	defer stop()
	select {
	case l.d.costs <- struct{}{}:
		defer func() { <-l.d.costs }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ids, err := find(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return ids, err
}

// Known gives the indexes of the trials that have rows, without reading any. They are not to be changed.
func (d *DB) Known(id grid.SweepID) *ranges.Set {
	if s := d.sweep(id); s != nil {
		return &s.known
	}
	return &ranges.Set{}
}
