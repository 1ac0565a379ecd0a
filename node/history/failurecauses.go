package history

import (
	"database/sql/driver"
	"maps"
	"slices"
	"strings"

	"mlfnode/grid"
)

// Cause is a group of failed attempts of a sweep that failed alike: of one class, by one rule or
// with one signature of the last line.
type Cause struct {
	ID          uint8 // identifies the cause in the columns; from 1
	Class       grid.Class
	Signature   string // the rule, or the signature of the last line; empty where the class says all
	Count       int64  // of attempts, including those after which the trial ran again
	First, Last int64  // when, microseconds since 1970
	Trial       int64  // an example: the first one
}

// maxCauses bounds the causes of a sweep; OtherCause stands for all further ones.
const (
	maxCauses  = 200
	OtherCause = maxCauses + 1
)

// causeTable holds the causes of one sweep. It is cloned before it is changed.
type causeTable struct {
	list  []Cause
	ids   map[causeKey]uint8
	dirty []uint8
}

type causeKey struct {
	class     grid.Class
	signature string
}

func newCauseTable() *causeTable {
	return &causeTable{ids: map[causeKey]uint8{}}
}

func (c *causeTable) clone() *causeTable {
	return &causeTable{list: slices.Clone(c.list), ids: maps.Clone(c.ids)}
}

func (c *causeTable) add(cause Cause) {
	c.list = append(c.list, cause)
	c.ids[causeKey{cause.Class, cause.Signature}] = cause.ID
}

// keyOf returns what distinguishes a failure from others.
func (c *causeTable) keyOf(r *grid.Result) causeKey {
	k := causeKey{class: r.Class, signature: r.Rule}
	if r.Class != grid.ClassExit || r.Rule != "" {
		return k
	}
	reason := strings.TrimSpace(r.Reason)
	if i := strings.LastIndexByte(reason, '\n'); i >= 0 { // the first line says how it ended
		k.signature = signatureOf(reason[i+1:])
	}
	return k
}

// idFor returns the ID of the cause of a trial's last failure, 0 for none.
func (c *causeTable) idFor(t *grid.Trial) uint8 {
	if t.Result.Class.EndsTrial() {
		return 0
	}
	return c.idOf(c.keyOf(&t.Result))
}

func (c *causeTable) idOf(k causeKey) uint8 {
	if id, ok := c.ids[k]; ok {
		return id
	}
	return OtherCause
}

// record counts the failure of an attempt.
func (c *causeTable) record(t *grid.Trial) {
	if t.Result.Class.EndsTrial() {
		return
	}
	k := c.keyOf(&t.Result)
	id := c.idOf(k)
	if id == OtherCause && len(c.list) < maxCauses {
		id = uint8(len(c.list) + 1)
		c.add(Cause{ID: id, Class: k.class, Signature: k.signature, First: t.Ended, Trial: t.Index})
	}
	if id == OtherCause {
		return
	}
	known := &c.list[id-1]
	known.Count++
	known.Last = max(known.Last, t.Ended)
	if !slices.Contains(c.dirty, id) {
		c.dirty = append(c.dirty, id)
	}
}

// store stores the causes that have changed.
func (c *causeTable) store(w *writer, sweep int64) error {
	for _, id := range c.dirty {
		k := &c.list[id-1]
		if err := w.run(putCause, sweep<<8|int64(id), string(k.Class), k.Signature, k.Count, k.First, k.Last,
			k.Trial); err != nil {
			return err
		}
	}
	c.dirty = nil
	return nil
}

// loadCauses loads the causes of sweeps.
func loadCauses(w *writer, sweeps map[grid.SweepID]*sweepSummary) error {
	for _, s := range sweeps {
		s.causes = newCauseTable()
	}
	numbered := byNumber(sweeps)
	return w.each("SELECT id, class, signature, count, first, last, trial FROM cause ORDER BY id",
		func(v []driver.Value) error {
			var n [5]int64
			for i, at := range []int{0, 3, 4, 5, 6} {
				var ok bool
				if n[i], ok = v[at].(int64); !ok {
					return errDamaged
				}
			}
			class, ok1 := v[1].(string)
			signature, ok2 := v[2].(string)
			s := numbered[n[0]>>8]
			if s == nil {
				return nil // it is being removed
			}
			id := uint8(n[0])
			if !ok1 || !ok2 || int(id) != len(s.causes.list)+1 {
				return errDamaged
			}
			s.causes.add(Cause{ID: id, Class: grid.Class(class), Signature: signature, Count: n[1], First: n[2],
				Last: n[3], Trial: n[4]})
			return nil
		})
}
