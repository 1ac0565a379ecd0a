package top

import tea "charm.land/bubbletea/v2"

// cursor is a position in a list, of which a window is visible.
type cursor struct {
	at   int
	top  int // of the window
	page int // rows of the window when it was last drawn
}

// window moves the window so that the position is in it, and returns the visible rows.
func (c *cursor) window(n, height int) (from, to int) {
	height = max(height, 1)
	c.page = height
	c.at = max(0, min(c.at, n-1))
	if c.at < c.top {
		c.top = c.at
	}
	if c.at >= c.top+height {
		c.top = c.at - height + 1
	}
	c.top = max(0, min(c.top, n-height))
	return c.top, min(n, c.top+height)
}

// moves returns the keys that move the cursor in a list of n rows. then is called after a move.
func (c *cursor) moves(n int, then func()) []binding {
	by := func(rows func() int) func() tea.Cmd {
		return func() tea.Cmd {
			c.at = max(0, min(c.at+rows(), n-1))
			then()
			return nil
		}
	}
	return []binding{
		{"j down", "", by(func() int { return 1 })},
		{"k up", "", by(func() int { return -1 })},
		{"pgdown ctrl+f", "", by(func() int { return max(1, c.page-1) })},
		{"pgup ctrl+b", "", by(func() int { return -max(1, c.page-1) })},
		{"g home", "", by(func() int { return -n })},
		{"G end", "", by(func() int { return n })},
	}
}

// movesHelp describes the keys that move in a list.
const movesHelp = "j k, arrows, PgUp PgDn, g G"
