package history

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// Counts sums up the trials of a sweep that have rows. Trials without events are not included.
type Counts struct {
	Running   int64 `json:"running"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Stopped   int64 `json:"stopped,omitempty"` // of the cancelled ones: by grid.ClassStopped
	Retrying  int64 `json:"retrying"`          // pending again after an attempt

	CPU     int64 `json:"cpu"`     // microseconds, of all results
	Wall    int64 `json:"wall"`    // microseconds, of all results
	Started int64 `json:"started"` // the earliest start of an attempt, microseconds since 1970
	Ended   int64 `json:"ended"`   // the latest end of an attempt, microseconds since 1970
}

// Done is the number of trials in a terminal state.
func (c *Counts) Done() int64 { return c.Succeeded + c.Failed + c.Cancelled }

// add counts a trial's row, or removes it from the counts with sign -1.
func (c *Counts) add(t *grid.Trial, sign int64) {
	switch t.State {
	case grid.Running:
		c.Running += sign
		return
	case grid.Succeeded:
		c.Succeeded += sign
	case grid.Failed:
		c.Failed += sign
	case grid.Cancelled:
		c.Cancelled += sign
		if t.Result.Class == grid.ClassStopped {
			c.Stopped += sign
		}
	default:
		c.Retrying += sign
		return
	}
	c.CPU += sign * t.Result.Usage.CPU
	c.Wall += sign * t.Result.Usage.Wall
}

// extendSpan widens the time from the first start to the last end.
func (c *Counts) extendSpan(t *grid.Trial) {
	if s := t.Result.Started; s > 0 && (c.Started == 0 || s < c.Started) {
		c.Started = s
	}
	c.Ended = max(c.Ended, t.Ended)
}

// MaxNames bounds the metric names kept for one sweep: a program that makes up names must not make
// the summary grow.
const MaxNames = 1000

// sweepSummary is what is kept in memory of a sweep. It is never changed once it is in
// index.sweeps.
type sweepSummary struct {
	Counts     Counts         `json:"counts"`
	Names      []string       `json:"names,omitempty"`
	Classes    []grid.Class   `json:"classes,omitempty"`     // of failures, in the order in which they first appeared
	Base       int64          `json:"base,omitempty"`        // when the first event happened, microseconds since 1970
	Version    int64          `json:"version,omitempty"`     // how often it was changed
	CurveBytes int64          `json:"curve_bytes,omitempty"` // of ended attempts
	Curved     bool           `json:"curved,omitempty"`      // some attempt has had a curve
	ID         grid.SweepID   `json:"-"`
	Number     int64          `json:"-"`
	known      ranges.Set     // trials that have rows, see the table known
	nameIndex  map[string]int // places in Names
	causes     *causeTable
	overlay    overlay
}

// byNumber returns sweeps by their numbers in the file.
func byNumber(sweeps map[grid.SweepID]*sweepSummary) map[int64]*sweepSummary {
	numbered := make(map[int64]*sweepSummary, len(sweeps))
	for _, s := range sweeps {
		numbered[s.Number] = s
	}
	return numbered
}

func (s *sweepSummary) clone() *sweepSummary {
	c := *s
	c.known, c.overlay = s.known.Clone(), s.overlay.clone()
	c.Names, c.Classes = slices.Clip(s.Names), slices.Clip(s.Classes)
	c.causes = s.causes.clone()
	return &c
}

// addNames adds metric names that are new, in alphabetical order where several are new at once.
func (s *sweepSummary) addNames(m grid.Metric) {
	var fresh []string
	for name := range m {
		if _, ok := s.nameIndex[name]; !ok {
			fresh = append(fresh, name)
		}
	}
	if len(fresh) == 0 || len(s.Names) >= MaxNames {
		return
	}
	slices.Sort(fresh)
	fresh = fresh[:min(len(fresh), MaxNames-len(s.Names))]
	named := make(map[string]int, len(s.nameIndex)+len(fresh)) // a new map: clones share the old one
	maps.Copy(named, s.nameIndex)
	s.nameIndex = named
	for _, name := range fresh {
		s.nameIndex[name] = len(s.Names)
		s.Names = append(s.Names, name)
	}
}

// storeSummary stores the summary.
func (w *writer) storeSummary(s *sweepSummary) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return w.run(putSummary, s.Number, string(s.ID), string(text))
}

// decodeSummary reads the number, the id and the summary of a sweep, as storeSummary has stored
// them.
func decodeSummary(v []driver.Value) (*sweepSummary, error) {
	number, ok1 := v[0].(int64)
	id, ok2 := v[1].(string)
	text, ok3 := v[2].(string)
	if !ok1 || !ok2 || !ok3 {
		return nil, errDamaged
	}
	s := &sweepSummary{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, fmt.Errorf("summary of %s: %w: %w", id, errDamaged, err)
	}
	s.ID, s.Number, s.nameIndex = grid.SweepID(id), number, make(map[string]int, len(s.Names))
	for i, name := range s.Names {
		s.nameIndex[name] = i
	}
	return s, nil
}

// sweeps loads every summary. Sweeps that are being removed have no id and are left out.
func (w *writer) sweeps() (map[grid.SweepID]*sweepSummary, error) {
	all := map[grid.SweepID]*sweepSummary{}
	err := w.each("SELECT number, id, summary FROM sweep WHERE id IS NOT NULL", func(v []driver.Value) error {
		s, err := decodeSummary(v)
		if err == nil {
			all[s.ID] = s
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, loadKnown(w, all)
}
