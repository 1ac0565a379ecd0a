package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"mlfnode/node/monitor/chart"
)

const (
	keptAnswers = 64
	keptBytes   = 8 << 20
	// keptETAs is the number of sweeps in progress whose time left is kept, at a few kB each.
	keptETAs = 1024
	// largeAnswer is the size from which an answer is not kept, because it would displace many
	// others.
	largeAnswer = keptBytes / 4
	// viewTTL is how long the last selection of trials is kept, which takes about 35 bytes per
	// trial.
	viewTTL = 5 * time.Second
	// keptViews is the number of selections that are kept: all trials of a sweep, and those that a
	// filter selects.
	keptViews = 2
	// minAge is the minimum age at which an answer about a running sweep is recomputed. An answer
	// that took long to compute is kept for ageFactor times that long.
	minAge    = time.Second
	ageFactor = 20
	// All answers that were requested within the last usedFor take at most one part in usedFactor
	// of the time together, but none is kept longer than usedAge for that: pages with many open
	// charts of a large sweep must not slow the sweep down.
	usedFor    = 30 * time.Second
	usedFactor = 60
	usedAge    = 15 * time.Second
	// viewFactor determines for how long a selection is shared: one part in so many of the age that
	// answers may have. So the charts of a page are recomputed together, from one selection.
	viewFactor = 4
	// restFactor determines for how long nothing is computed for callers that can't wait: this many
	// times as long as the last answer took. With many sweeps in progress, each is recomputed less
	// often.
	restFactor = 4
)

// computation computes an answer. from is zero if the answer is not computed from a selection that
// others share.
type computation func() (v any, from selection, err error)

// selection describes a selection of trials.
type selection struct {
	key, version string
	made         time.Time // when it was begun
	took         time.Duration
}

// chartCache computes answers one at a time, each on all cores, and keeps the most recent ones:
// however many pages are open, a chart is computed at most once a second, and all charts together
// take a small part of the time.
type chartCache struct {
	compute semaphore
	limit   int // the number of answers that are kept

	mu        sync.Mutex
	kept      []*answer // the most recently used one last
	bytes     int
	views     recentlyUsed[*keptView]
	restUntil time.Time // from then on, answers may be computed for callers that can't wait
}

func newChartCache(most int) *chartCache {
	return &chartCache{
		compute: make(semaphore, 1), limit: most, views: recentlyUsed[*keptView]{most: keptViews, ttl: viewTTL},
	}
}

// get returns a cached answer that is recent enough, or computes one. If least is 0, only an answer
// of exactly this version is recent enough.
func (c *chartCache) get(
	ctx context.Context, key, version string, least time.Duration, compute computation,
) (*answer, error) {
	if least > 0 {
		least = max(least, c.sharedAge())
	}
	if a := c.lookUp(key, version, least); a != nil {
		return a, nil
	}
	leave, err := c.compute.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if a := c.lookUp(key, version, least); a != nil { // another caller has computed the same in the meantime
		return a, nil
	}
	return c.computeAndKeep(key, version, compute)
}

// recent is like get, for a caller that can't wait: while another answer is being computed, and for
// some time afterwards, recent returns the last answer, however old, or nil.
func (c *chartCache) recent(key, version string, least time.Duration, compute computation) (*answer, error) {
	if a := c.lookUp(key, version, max(least, c.roundTime())); a != nil {
		return a, nil
	}
	select {
	case c.compute <- struct{}{}:
		defer func() { <-c.compute }()
		c.mu.Lock()
		rested := !time.Now().Before(c.restUntil)
		c.mu.Unlock()
		if rested {
			return c.computeAndKeep(key, version, compute)
		}
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.indexLocked(key); i >= 0 {
		return c.kept[i], nil
	}
	return nil, nil
}

// roundTime is twice the time that it takes to compute all cached answers: an answer younger than
// that yields to the others.
func (c *chartCache) roundTime() (total time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.kept {
		total += 2 * (1 + restFactor) * a.took
	}
	return total
}

// computeAndKeep computes an answer and caches it. The caller holds the semaphore.
func (c *chartCache) computeAndKeep(key, version string, compute computation) (*answer, error) {
	a, err := newAnswer(key, version, compute)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restUntil = time.Now().Add(restFactor * a.took)
	c.dropLocked(c.indexLocked(key))
	if len(a.body) > largeAnswer {
		return a, nil
	}
	c.kept, c.bytes = append(c.kept, a), c.bytes+len(a.body)
	for len(c.kept) > c.limit || c.bytes > keptBytes && len(c.kept) > 1 {
		c.dropLocked(0)
	}
	return a, nil
}

func (c *chartCache) lookUp(key, version string, least time.Duration) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.indexLocked(key)
	if i < 0 {
		return nil
	}
	a := c.kept[i]
	a.used = time.Now()
	if a.version != version && (least == 0 || time.Since(a.made) > max(least, ageFactor*max(a.took, a.from.took))) {
		return nil
	}
	c.kept = append(slices.Delete(c.kept, i, i+1), a)
	return a
}

// sharedAge is how long an answer is kept for the sake of the other answers in use.
func (c *chartCache) sharedAge() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	total, now, selections := time.Duration(0), time.Now(), map[string]time.Duration{}
	for _, a := range c.kept {
		if now.Sub(a.used) < usedFor {
			total += a.took
			selections[a.from.key] = max(selections[a.from.key], a.from.took)
		}
	}
	for _, took := range selections {
		total += took
	}
	return min(usedFactor*total, usedAge)
}

// indexLocked returns the index of a cached answer, or -1 if there is none.
func (c *chartCache) indexLocked(key string) int {
	return slices.IndexFunc(c.kept, func(k *answer) bool { return k.key == key })
}

func (c *chartCache) dropLocked(i int) {
	if i >= 0 {
		c.bytes -= len(c.kept[i].body)
		c.kept = slices.Delete(c.kept, i, i+1)
	}
}

// keptView is a selection of trials.
type keptView struct {
	selection

	view *chart.View
}

// viewAge is how long a selection of a sweep in progress is shared. It is less than the age at
// which an answer is recomputed: otherwise an answer would be recomputed from the selection that it
// is of.
func (c *chartCache) viewAge() time.Duration { return max(minAge, c.sharedAge()/viewFactor) }

// lastView returns a recent selection if it has this key, and this version or an age below least.
// The caller holds the semaphore.
func (c *chartCache) lastView(key, version string, least time.Duration) *keptView {
	v, _ := c.views.find(func(k *keptView) bool {
		return k.key == key && (k.version == version || time.Since(k.made) < least)
	})
	return v
}

func (c *chartCache) keepView(v *keptView) {
	c.views.add(v, func(k *keptView) bool { return k.key == v.key })
}

// answer is a chart as it was at one moment.
type answer struct {
	key     string
	version string
	made    time.Time     // when it was begun, or the selection that it is computed from
	took    time.Duration // without the selection
	from    selection
	body    []byte
	used    time.Time // when it was last requested; guarded by chartCache.mu
}

func newAnswer(key, version string, compute computation) (*answer, error) {
	began := time.Now()
	v, from, err := compute()
	if err != nil {
		return nil, err
	}
	a := &answer{key: key, version: version, made: began, from: from}
	if from.key != "" {
		a.version, a.made = from.version, from.made
	}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode chart: %w", err)
	}
	a.body, a.used, a.took = append(body, '\n'), time.Now(), time.Since(began)
	if !from.made.Before(began) { // the selection was made for this answer, and serves others as well
		a.took -= from.took
	}
	return a, nil
}
