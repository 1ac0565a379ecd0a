package monitor

import (
	"context"
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

// parseAfter parses the cursor of a request.
func (l *listing) parseAfter(r *http.Request) error {
	sum := crc32.ChecksumIEEE(fmt.Append(nil, l.q.Sort, l.q.Desc, l.parameter, l.filtered))
	l.order = strconv.FormatUint(uint64(sum), 36)
	text := r.FormValue("after")
	if text == "" {
		return nil
	}
	order, place, _ := strings.Cut(text, ".")
	c, err := &trialCursor{}, error(nil)
	if index, unknown := strings.CutPrefix(place, "u"); unknown {
		n, err := strconv.ParseInt(index, 10, 64)
		if err == nil && n >= 0 && n < l.sweep.Space.Count() {
			c.Index, c.unknown = n, true
		} else {
			order = ""
		}
	} else if p, ok := history.ParseCursor(place); ok {
		c.Cursor = p
		if p.IsDigest() {
			if c.Cursor, err = l.wholePlace(r.Context(), p); err != nil {
				return err
			}
		}
	} else {
		order = ""
	}
	switch {
	case order == "":
		return badRequest(fmt.Sprintf("after %.60q is not a place in the list", text), "take it from cursor of the page before")
	case order != l.order:
		return badRequest("after is a place in another order", "send the sort, desc and filters of the page that it is from")
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
		text = l.placeOf(t).String()
	}
	return l.order + "." + text
}

func (l *listing) placeOf(t *grid.Trial) history.Cursor {
	metric := ""
	if o := l.sweep.Task.Objective; o != nil {
		metric = o.Metric
	}
	return history.CursorOf(t, history.Sort(l.sorted), metric)
}

// wholePlace returns the full cursor for a cursor that contains only the digest of a text.
func (l *listing) wholePlace(ctx context.Context, p history.Cursor) (history.Cursor, error) {
	t, _, err := l.trials.history.Trial(ctx, grid.TrialID{Sweep: l.sweep.ID, Index: p.Index})
	if err != nil {
		return p, err
	}
	if t.Index = p.Index; l.placeOf(&t).String() != p.String() {
		return p, badRequest(fmt.Sprintf("trial %d, which the page before ended with, has another value now", p.Index), "begin with the first page again")
	}
	return l.placeOf(&t), nil
}

// historyCursor returns the cursor for history, or nil if there is none.
func (l *listing) historyCursor() *history.Cursor {
	if l.after == nil {
		return nil
	}
	return &l.after.Cursor
}

// firstIndex returns the smallest index after the cursor, in the order of the index.
func (l *listing) firstIndex() int64 {
	if l.after == nil {
		return 0
	}
	return l.after.Index + 1
}
