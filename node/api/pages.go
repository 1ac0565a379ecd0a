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
	Total  int     `json:"total"`          // that the query selects, over all pages
	Next   string  `json:"next,omitempty"` // asks as after for the page behind this one; empty at the end
}

// TrialTable is a page of trials by column, a sixth of the size of the same trials by row.
type TrialTable struct {
	Sweep   grid.SweepID `json:"sweep"`
	Applied uint64       `json:"applied"`          // last event that the page knows of; ids of the event stream are of the same numbers
	Total   *int64       `json:"total"`            // trials that the query selects, over all pages; null where that is not counted
	Offset  int64        `json:"offset"`           // of the page
	Next    *int64       `json:"next,omitempty"`   // offset of the page behind this one; not of a page that begins after a place
	Cursor  string       `json:"cursor,omitempty"` // after of the page behind this one: unlike an offset it stays where it is when trials change
	Count   int          `json:"count"`            // values in each column
	Columns []Column     `json:"columns"`
}

// Column is one column of a table: each trial's value under a name.
type Column struct {
	Name   string `json:"name"`   // a field of Trial, p[KEY] for a parameter or m[NAME] for a metric
	Values []any  `json:"values"` // null where a trial has none
}
