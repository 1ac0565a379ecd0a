package api

import "mlfnode/grid"

// Bounds of the pages of lists.
const (
	DefaultPage    = 100
	MaxSweepsPage  = 200
	MaxTrialsPage  = 500
	MaxFieldsQuery = 64 // columns in a query
)

// SweepList is a page of sweeps, the newest first.
type SweepList struct {
	Sweeps []Sweep `json:"sweeps"`
	Total  int     `json:"total"`          // number of sweeps that the query selects, over all pages
	Next   string  `json:"next,omitempty"` // value of after for the next page; empty on the last page
}

// TrialTable is a page of trials by column, a sixth of the size of the same trials by row.
type TrialTable struct {
	Sweep grid.SweepID `json:"sweep"`
	// the last event that the page includes, numbered like the ids of the event stream
	Applied uint64 `json:"applied"`
	// number of trials that the query selects, over all pages; null if they are not counted
	Total  *int64 `json:"total"`
	Offset int64  `json:"offset"`         // offset of this page
	Next   *int64 `json:"next,omitempty"` // offset of the next page; absent if the page was requested with after
	// value of after for the next page: unlike an offset, it remains valid when trials change
	Cursor  string   `json:"cursor,omitempty"`
	Count   int      `json:"count"` // number of values in each column
	Columns []Column `json:"columns"`
}

// Column is one column of a table.
type Column struct {
	Name   string `json:"name"`   // a field of Trial, p[KEY] for a parameter or m[NAME] for a metric
	Values []any  `json:"values"` // one for each trial; null if the trial has none
}
