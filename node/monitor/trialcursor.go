package monitor

import (
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// trialCursor is a position in a listing of trials. In the order of a value, trials without a row
// follow all others, by index.
type trialCursor struct {
	history.Cursor
	unknown bool
}

// listingPlaces are the order of a listing and the cursors in it.
type listingPlaces struct {
	parameter string                     // to sort by instead of the sort key; empty for none
	sorted    string                     // the requested sort key
	order     string                     // identifies the order in cursors
	after     *trialCursor               // that the page begins behind; nil for none
	filtered  bool                       // a filter selects the trials and their order
	places    func(n int) history.Cursor // of the selected trials
}

// parseAfter parses the cursor of a request.
func (l *listing) parseAfter(r *http.Request) error {
	sum := crc32.ChecksumIEEE(fmt.Append(nil, l.q.Sort, l.q.Desc, l.parameter, l.filtered))
	l.order = strconv.FormatUint(uint64(sum), 36)
	text := r.FormValue("after")
	if text == "" {
		return nil
	}
	order, place, _ := strings.Cut(text, ".")
	c := &trialCursor{}
	if index, unknown := strings.CutPrefix(place, "u"); unknown {
		n, err := strconv.ParseInt(index, 10, 64)
		if err == nil && n >= 0 && n < l.sweep.Space.Count() {
			c.Index, c.unknown = n, true
		} else {
			order = ""
		}
	} else if p, ok := history.ParseCursor(place); ok {
		c.Cursor = p
		if p.IsDigest() { // of a text: the cursor that has the text is that of its trial
			t, _, err := l.trials.history.Trial(r.Context(), grid.TrialID{Sweep: l.sweep.ID, Index: p.Index})
			if err != nil {
				return err
			}
			t.Index = p.Index
			if c.Cursor = l.placeOf(&t, l.sweep); c.String() != p.String() {
				return badRequest(fmt.Sprintf("trial %d, which the page before ended with, has another value now",
					p.Index), "begin with the first page again")
			}
		}
	} else {
		order = ""
	}
	switch {
	case order == "":
		return badRequest(fmt.Sprintf("after %.60q is not a place in the list", text),
			"take it from cursor of the page before")
	case order != l.order:
		return badRequest("after is a place in another order",
			"send the sort, desc and filters of the page that it is from")
	case l.q.Offset > 0:
		return badRequest("a page begins after a place or at an offset", "leave out offset")
	}
	l.after = c
	return nil
}

// cursorAt returns the cursor of the trial that is being emitted, which is the nth trial if a
// filter selects trials.
func (l *listing) cursorAt(t *grid.Trial, n int64) string {
	text := ""
	switch {
	case l.parameter != "":
		text = history.Cursor{Index: t.Index}.String()
	case l.filtered:
		text = l.places(int(n)).String()
	case l.sorted == string(history.SortState):
		text = history.Cursor{Index: t.Index, Value: int64(slices.Index(grid.States[:], stateOf(t)))}.String()
	case l.sorted != string(history.SortIndex) && l.lastUnrecorded == t.Index:
		return l.order + ".u" + strconv.FormatInt(t.Index, 10)
	default:
		text = l.placeOf(t, l.sweep).String()
	}
	return l.order + "." + text
}

func (l *listingPlaces) placeOf(t *grid.Trial, s *grid.Sweep) history.Cursor {
	metric := ""
	if o := s.Task.Objective; o != nil {
		metric = o.Metric
	}
	return history.CursorOf(t, history.Sort(l.sorted), metric)
}

// historyCursor returns the cursor for history, or nil if there is none.
func (l *listingPlaces) historyCursor() *history.Cursor {
	if l.after == nil {
		return nil
	}
	return &l.after.Cursor
}

// firstIndex returns the smallest index after the cursor, in the order of the index.
func (l *listingPlaces) firstIndex() int64 {
	if l.after == nil {
		return 0
	}
	return l.after.Index + 1
}
