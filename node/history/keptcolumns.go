package history

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// keptColumnBytes bounds the columns that are kept, and keptColumnsFor says how long those are that nobody asks for.
	keptColumnBytes = 64 << 20
	keptColumnsFor  = 5 * time.Second
)

// keptColumns keeps the columns of a sweep that were read last: the next chart or page of a list mostly needs the same ones. They are good for
// as long as the sweep has no event. The zero value keeps none yet.
type keptColumns struct {
	mu    sync.Mutex
	sweep *sweep // as it was
	all   *Columns
	gone  *time.Timer
	kept  time.Duration // without a use; 0 is keptColumnsFor
}

func (k *keptColumns) time() time.Duration { return cmp.Or(k.kept, keptColumnsFor) }

// find adds what is kept of a sweep to columns of the same blocks, and says which of the wanted ones are missing.
func (k *keptColumns) find(s *sweep, c *Columns, wanted []Column) (missing []Column) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sweep != s || k.all.Stride != c.Stride {
		missing = []Column{columnSmall}
		for _, w := range wanted { // each once: another goroutine reads each
			if !slices.Contains(missing, w) {
				missing = append(missing, w)
			}
		}
		return missing
	}
	k.gone.Reset(k.time())
	c.State, c.Attempts, c.Class, c.Cause, c.Node = k.all.State, k.all.Attempts, k.all.Class, k.all.Cause, k.all.Node
	for _, w := range wanted {
		if values, ok := k.all.Values[w]; ok {
			c.Values[w], c.whole[w] = values, k.all.whole[w]
		} else if !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// keep keeps columns of a sweep beside those of it that are kept.
func (k *keptColumns) keep(s *sweep, c *Columns) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := &Columns{
		Stride: c.Stride, State: c.State, Attempts: c.Attempts, Class: c.Class, Cause: c.Cause, Node: c.Node,
		Values: maps.Clone(c.Values), whole: maps.Clone(c.whole),
	}
	if k.sweep == s && k.all.Stride == c.Stride {
		for w, values := range k.all.Values {
			all.Values[w], all.whole[w] = values, k.all.whole[w]
		}
	}
	if len(all.State)*(smallBytes/blockTrials+4*len(all.Values)) > keptColumnBytes {
		return
	}
	k.clearLocked()
	k.sweep, k.all = s, all
	k.gone = time.AfterFunc(k.time(), func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.all == all {
			k.clearLocked()
		}
	})
}

// clear forgets all.
func (k *keptColumns) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.clearLocked()
}

func (k *keptColumns) clearLocked() {
	if k.gone != nil {
		k.gone.Stop()
	}
	k.sweep, k.all, k.gone = nil, nil, nil
}
