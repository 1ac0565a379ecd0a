package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// column is a column of a table. If there is not enough room for all columns, those of the highest
// rank are left out first; rank 0 always stays.
type column struct {
	head  string
	right bool
	rank  int
	fill  bool // takes the remaining width
}

const (
	columnGap   = 2
	widestCell  = 28
	narrowest   = 4 // of a column that takes the remaining width
	chosenMark  = "> "
	notChosen   = "  "
	markedWidth = len(chosenMark)
)

// table lays out rows in columns. The chosen row, -1 for none, is marked. Cells may be painted; the
// cells of a column that fills may be made by fill, once its width is known.
func (p paint) table(width int, columns []column, rows [][]string, at int, fill func(row, width int) string) []string {
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = ansi.StringWidth(c.head)
		for _, r := range rows {
			widths[i] = min(max(widths[i], ansi.StringWidth(r[i])), max(widestCell, ansi.StringWidth(c.head)))
		}
		if c.fill {
			widths[i] = max(widths[i], narrowest)
		}
	}
	shown := choose(columns, widths, width-markedWidth)
	total := 0
	for _, i := range shown {
		total += widths[i] + columnGap
	}
	total -= columnGap
	for _, i := range shown {
		if columns[i].fill && fill != nil {
			widths[i] += max(0, min(width-markedWidth-total, widestCell-widths[i]))
		}
	}
	lay := func(mark string, cell func(i int) string) string {
		cells := make([]string, len(shown))
		for n, i := range shown {
			cells[n] = pad(fit(cell(i), widths[i]), widths[i], columns[i].right)
		}
		return fit(mark+strings.TrimRight(strings.Join(cells, strings.Repeat(" ", columnGap)), " "), width)
	}
	out := []string{p.text(faint, lay(notChosen, func(i int) string { return columns[i].head }))}
	for n, r := range rows {
		mark := notChosen
		if n == at {
			mark = chosenMark
		}
		text := lay(mark, func(i int) string {
			if columns[i].fill && fill != nil {
				return fill(n, widths[i])
			}
			return r[i]
		})
		if n == at {
			text = p.text(chosen, ansi.Strip(text))
		}
		out = append(out, text)
	}
	return out
}

// choose returns the columns for which there is room, in their order.
func choose(columns []column, widths []int, room int) []int {
	rank := 0
	for _, c := range columns {
		rank = max(rank, c.rank)
	}
	for ; ; rank-- {
		var shown []int
		total := -columnGap
		for i, c := range columns {
			if c.rank <= rank {
				shown = append(shown, i)
				total += widths[i] + columnGap
			}
		}
		if total <= room || rank == 0 {
			return shown
		}
	}
}
