package history

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"

	"mlfnode/grid"
)

// order finds the ids of the selected rows in the order that was asked for.
func (l *list) order(ctx context.Context) ([]int64, error) {
	if l.q.Sort == SortObjective && (len(l.q.States) == 0 || slices.Contains(l.q.States, grid.Succeeded)) {
		return l.byObjective(ctx)
	}
	expr, args := l.expression()
	return l.ids(ctx, l.where(l.bounds()), expr+l.direction()+" NULLS LAST, id", l.q.Limit, l.q.Offset, args...)
}

// byObjective walks the index of objectives, and then takes the rows without one.
func (l *list) byObjective(ctx context.Context) ([]int64, error) {
	measured := fmt.Sprintf("id >> %d = %d AND objective IS NOT NULL AND ", indexBits, l.sweep.Number)
	where := l.where(l.bounds())
	ids, err := l.ids(ctx, measured+where, "objective"+l.direction()+", id", l.q.Limit, l.q.Offset)
	if err != nil || (l.q.Limit > 0 && int64(len(ids)) >= l.q.Limit) {
		return ids, err
	}
	skip := int64(0)
	if len(ids) == 0 && l.q.Offset > 0 {
		n, err := collect(ctx, l.d.read, nil, number, "SELECT count(*) FROM trial WHERE "+measured+where)
		if err != nil {
			return nil, err
		}
		skip = max(0, l.q.Offset-n[0])
	}
	limit := l.q.Limit
	if limit > 0 {
		limit -= int64(len(ids))
	}
	rest, err := l.ids(ctx, where+" AND objective IS NULL", "id", limit, skip)
	return append(ids, rest...), err
}

func (l *list) direction() string {
	if l.q.Desc {
		return " DESC"
	}
	return ""
}

// expression gives what to sort by in SQL, with its arguments. A value of 0 counts as missing where nothing measures 0.
func (l *list) expression() (string, []any) {
	switch l.q.Sort {
	case SortStarted, SortEnded, SortMemory, SortWall, SortCPU:
		return fmt.Sprintf("nullif(%s, 0)", l.q.Sort), nil
	case SortObjective, SortState, SortAttempts:
		return string(l.q.Sort), nil
	}
	if strings.ContainsFunc(string(l.q.Sort), func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r > '~' }) {
		return "(SELECT atom FROM json_each(metrics) WHERE key = ?)", []any{string(l.q.Sort)}
	}
	return "json_extract(metrics, ?)", []any{`$."` + string(l.q.Sort) + `"`}
}

func (l *list) ids(ctx context.Context, where, order string, limit, offset int64, args ...any) ([]int64, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	text := fmt.Sprintf("SELECT id FROM trial WHERE %s ORDER BY %s LIMIT %d OFFSET %d", where, order, limit, max(offset, 0))
	return collect(ctx, l.d.read, nil, number, text, args...)
}

func number(rows *sql.Rows) (n int64, err error) {
	err = rows.Scan(&n)
	return n, err
}
