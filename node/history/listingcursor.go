package history

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// Cursor is a place in an order of trials: the value that the order sorts by, and the index. It
// stays where it is when trials change, appear and disappear, including the one that it was made
// of.
type Cursor struct {
	Index int64
	Value any // int64, float64 or string; nil for a place after all values
}

// digest stands for a text that is too long to be written in a cursor.
type digest string

// IsDigest reports whether the cursor was parsed from a form without the whole text. CursorOf
// returns the whole cursor again, as long as its trial has that text.
func (p Cursor) IsDigest() bool {
	_, short := p.Value.(digest)
	return short
}

// CursorOf returns the cursor of a trial, which this history has returned, in an order. metric is
// the objective's.
func CursorOf(t *grid.Trial, by Sort, metric string) Cursor {
	positive := func(v int64) Cursor {
		if v == 0 {
			return Cursor{Index: t.Index}
		}
		return Cursor{t.Index, v}
	}
	r := &t.Result
	switch by {
	case SortIndex, "":
		return Cursor{t.Index, t.Index}
	case SortStarted:
		return positive(r.Started)
	case SortEnded:
		return positive(t.Ended)
	case SortWall, SortCPU:
		if t.Ended <= 0 || r.Started <= 0 {
			return Cursor{Index: t.Index}
		}
		return positive(map[Sort]int64{SortWall: r.Usage.Wall, SortCPU: r.Usage.CPU}[by])
	case SortMemory:
		return positive(r.Usage.Memory)
	case SortState:
		return Cursor{t.Index, stateCode(t.State)}
	case SortAttempts:
		return Cursor{t.Index, int64(t.Attempts)}
	case SortObjective:
		return Cursor{t.Index, objective(r.Metrics, metric)}
	}
	return Cursor{t.Index, metricValue(r.Metrics[string(by)])}
}

// metricValue reads JSON as the expression of a listing does.
func metricValue(raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	switch raw[0] {
	case '"':
		var word string
		if json.Unmarshal(raw, &word) != nil {
			return nil
		}
		if f, special := grid.Special(word); !special {
			return word
		} else if !math.IsNaN(f) {
			return f
		}
		return nil
	case '[', '{':
		var b bytes.Buffer
		if json.Compact(&b, raw) != nil {
			return nil
		}
		return b.String()
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n
	}
	if f, _ := metricNumber(raw); !math.IsNaN(f) {
		return f
	}
	return nil
}

// maxCursorText bounds the texts in written cursors.
const maxCursorText = 1024

// String returns a cursor in the form that ParseCursor reads, with the digest of a text that is too
// long.
func (p Cursor) String() string {
	switch v := p.Value.(type) {
	case int64:
		return fmt.Sprintf("%d.i%d", p.Index, v)
	case float64:
		return fmt.Sprintf("%d.f%s", p.Index, strconv.FormatFloat(v, 'g', -1, 64))
	case string:
		if len(v) > maxCursorText {
			return fmt.Sprintf("%d.h%x", p.Index, sha256.Sum256([]byte(v)))
		}
		return fmt.Sprintf("%d.s%s", p.Index, v)
	case digest:
		return fmt.Sprintf("%d.h%s", p.Index, string(v))
	}
	return fmt.Sprintf("%d.n", p.Index)
}

// ParseCursor is the inverse of String; false for anything else.
func ParseCursor(text string) (p Cursor, ok bool) {
	index, value, found := strings.Cut(text, ".")
	var err, err2 error
	if p.Index, err = strconv.ParseInt(index, 10, 64); err != nil || !found || value == "" || p.Index < 0 ||
		p.Index > maxIndex {
		return p, false
	}
	kind, value := value[0], value[1:]
	switch kind {
	case 'i':
		p.Value, err2 = strconv.ParseInt(value, 10, 64)
	case 'f':
		var f float64
		f, err2 = strconv.ParseFloat(value, 64)
		p.Value = f
		if math.IsNaN(f) {
			return p, false
		}
	case 's':
		p.Value = value
	case 'h':
		p.Value = digest(value)
	case 'n':
		return p, value == ""
	default:
		return p, false
	}
	return p, err2 == nil && len(value) <= maxCursorText
}

// isAfter reports whether a row comes after a cursor.
func (sel *selection) isAfter(c candidate, p *Cursor) bool {
	last := candidate{rowID(sel.sweep.Number, p.Index), p.Value}
	return cmp.Or(compareKinds(c.value, p.Value), sel.compare(c, last)) > 0
}

// compareKinds orders numbers, texts and missing values.
func compareKinds(a, b any) int {
	kind := func(v any) int {
		switch v.(type) {
		case nil:
			return 2
		case string:
			return 1
		}
		return 0
	}
	return cmp.Compare(kind(a), kind(b))
}

// afterSQL is isAfter as a condition on v and id, with its arguments.
func (sel *selection) afterSQL(p *Cursor) (string, []any) {
	beyond := ">"
	if sel.q.Desc {
		beyond = "<"
	}
	id := rowID(sel.sweep.Number, p.Index)
	here := fmt.Sprintf("(v %s ? OR v = ? AND id > %d)", beyond, id)
	switch v := p.Value.(type) {
	case nil:
		return fmt.Sprintf("v IS NULL AND id > %d", id), nil
	case string:
		return "(v IS NULL OR typeof(v) = 'text' AND " + here + ")", []any{v, v}
	default:
		return "(v IS NULL OR typeof(v) = 'text' OR " + here + ")", []any{v, v}
	}
}

// sortedAfter finds a page after a cursor by reading all rows that the listing selects.
func (l *listing) sortedAfter(ctx context.Context) ([]int64, error) {
	expr, args := l.expression()
	condition, more := l.afterSQL(l.q.After)
	limit := l.q.Limit
	if limit <= 0 {
		limit = math.MaxInt64
	}
	text := fmt.Sprintf("SELECT id FROM (SELECT id, %s AS v FROM trial WHERE %s) WHERE %s ORDER BY %s, id LIMIT %d",
		expr, l.condition(l.idRange()), condition, l.orderBy("v"), limit)
	return l.limitSort(ctx, func(ctx context.Context) ([]int64, error) {
		return queryAll(ctx, l.d.read, nil, scanInt, text, append(args, more...)...)
	})
}
