package monitor

import (
	"fmt"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

const (
	// keptTrialPages bounds the pages that are kept, and trialPagesTTL how long unused ones stay.
	keptTrialPages = 16
	trialPagesTTL  = 5 * time.Second
	// maxPageValues bounds the values of a page that is kept: a sweep may have a thousand metrics.
	maxPageValues = 20_000
)

// trialPages keeps pages of tables by index. While a sweep runs at full rate, most pages that
// people look at stay the same: one whose trials have not changed is not read again.
type trialPages struct{ recent recentlyUsed[*trialPage] }

func newTrialPages() *trialPages {
	return &trialPages{recentlyUsed[*trialPage]{most: keptTrialPages, ttl: trialPagesTTL}}
}

// trialPage is the part of a table that only its trials determine.
type trialPage struct {
	key    string
	sweep  *grid.Sweep // another record may have other trials
	lo, hi int64       // the trials that the page depends on
	mark   uint64      // of history, before the page was read
	table  api.TrialTable
}

// pageKey identifies the page of a listing; it is empty if other trials than those of the page, or
// the time, determine what is on it.
func pageKey(l *listing, columns []column[api.Trial], limit int64) string {
	ascending := l.parameter == "" && l.q.Sort == "index" && !l.q.Desc
	if !ascending || l.after != nil || l.filtered || len(l.q.States) > 0 || l.q.Class != "" {
		return ""
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return fmt.Sprintf("%s %d %d %q", l.sweep.ID, l.q.Offset, limit, strings.Join(names, "\x00"))
}

// find returns a page if its trials have not changed since it was read, and none without a key.
func (p *trialPages) find(key string, s *grid.Sweep, h *history.DB) (table api.TrialTable, ok bool) {
	page, ok := p.recent.find(func(k *trialPage) bool {
		return k.key == key && k.sweep == s && h.Unchanged(s.ID, k.lo, k.hi, k.mark)
	})
	if ok {
		table = page.table
	}
	return table, ok
}

// add keeps a page, unless it is large.
func (p *trialPages) add(page *trialPage) {
	if int(page.table.Count)*len(page.table.Columns) <= maxPageValues {
		p.recent.add(page, func(k *trialPage) bool { return k.key == page.key })
	}
}
