package monitor

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/api"
)

const (
	searchTimeout = 2 * time.Second // after which a search returns what it has found
	hitContext    = 120             // bytes of a line that are included before and after a hit
	searchPart    = 64 << 10        // a longer line is searched in parts of this size
)

// search finds a text in the output of an attempt.
func (h *logHandlers) search(r *http.Request) (api.LogHits, error) {
	out := api.LogHits{Hits: []api.LogHit{}}
	t, stream, err := h.lookup.trialStream(r)
	if err != nil {
		return out, err
	}
	s, err := searchOf(r)
	if err != nil {
		return out, err
	}
	offset, err := intParam(r, "offset", 0, 0, maxOffset)
	if err != nil {
		return out, err
	}
	leave, err := h.indexes.readers.acquire(r.Context())
	if err != nil {
		return out, err
	}
	defer leave()
	ctx, stop := context.WithTimeout(r.Context(), h.indexes.timeout)
	defer stop()
	end, late := offset, false
	search := func(p position, c *jetstream.Chunk) error {
		at, data := p.of(stream), c.Data
		data = data[min(max(0, offset-at), int64(len(data))):]
		if stream > 0 && c.Stream != stream || len(data) == 0 {
			return nil
		}
		out.Searched += int64(len(data))
		end = p.of(stream) + int64(len(c.Data))
		s.add(c.Stream, end-int64(len(data)), data)
		if late = ctx.Err() != nil; late || s.full() {
			return errEnough
		}
		return nil
	}
	err = h.readLog(ctx, t, stream, offset, search)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil { // while skipping the output of others
		late, err = true, nil
	}
	if err != nil {
		return out, fmt.Errorf("search the output of trial %d: %w", t.index, err)
	}
	next := max(offset, end-int64(len(s.text)-1)) // a hit may extend beyond the end
	if s.full() {
		next = s.hits[len(s.hits)-1].Offset + 1
	}
	if late || s.full() {
		out.Next = &next
	}
	out.Attempt = t.number
	for _, hit := range s.finish() {
		if out.Next == nil || hit.Offset < next {
			out.Hits = append(out.Hits, hit)
		}
	}
	return out, nil
}

// readLog calls piece as walk does, with the cached output of the attempt or with what it reads; it
// caches what it reads if that is all output of an ended attempt.
func (h *logHandlers) readLog(
	ctx context.Context, t *trialLog, stream uint8, offset int64, piece func(position, *jetstream.Chunk) error,
) error {
	if kept := h.indexes.cache.get(t); kept != nil {
		for i := range kept {
			if piece(kept[i].position, &kept[i].Chunk) != nil {
				return nil
			}
		}
		return nil
	}
	r := recorder{incomplete: offset > 0 || stream > 0 || !t.ended}
	err := h.indexes.get(t).walk(ctx, h.store.Logs, t, stream, offset,
		func(_ uint64, p position, c *jetstream.Chunk) error {
			r.add(p, c)
			err := piece(p, c)
			r.incomplete = r.incomplete || err != nil
			return err
		})
	if err == nil && !r.incomplete && len(r.pieces) > 0 {
		h.indexes.cache.set(t, r.pieces)
	}
	return err
}

// search finds a text in the lines of streams whose pieces are interleaved.
type search struct {
	*textFinder
	limit int
	hits  []api.LogHit
	lines [logStreams]pendingLine
}

// pendingLine is what a stream has printed since the end of its last complete line.
type pendingLine struct {
	data  []byte
	parts []linePart
}

// linePart states the offset of one byte of an unfinished line; the bytes after it have consecutive
// offsets, up to the next part.
type linePart struct {
	at     int
	offset int64
}

// searchOf returns the search that a request describes.
func searchOf(r *http.Request) (*search, error) {
	text := r.FormValue("q")
	if text == "" || len(text) > api.MaxLogQuery || strings.ContainsAny(text, "\n\r") {
		return nil, badRequest(fmt.Sprintf("q is not a text of 1 to %d bytes on one line", api.MaxLogQuery), "")
	}
	limit, err := intParam(r, "limit", api.DefaultHits, 1, api.MaxHits)
	return newSearch(text, r.FormValue("case") == "true", int(limit)), err
}

func newSearch(text string, exact bool, limit int) *search {
	return &search{textFinder: newTextFinder(text, exact), limit: limit}
}

func (s *search) full() bool { return len(s.hits) >= s.limit }

// add searches the lines that a piece completes.
func (s *search) add(stream uint8, offset int64, data []byte) {
	u := &s.lines[stream]
	if len(u.data) > 0 {
		line := data
		if end := bytes.IndexAny(data, "\n\r"); end >= 0 {
			line = data[:end+1]
		}
		if last := u.parts[len(u.parts)-1]; last.offset+int64(len(u.data)-last.at) != offset {
			u.parts = append(u.parts, linePart{len(u.data), offset})
		}
		u.data = append(u.data, line...)
		s.searchEnded(stream, u.data)
		data, offset = data[len(line):], offset+int64(len(line))
	}
	if len(data) > 0 {
		u.parts = append(u.parts[:0], linePart{0, offset})
		s.searchEnded(stream, data)
	}
}

// searchEnded searches the lines that have been completed since the last call, and keeps the rest.
func (s *search) searchEnded(stream uint8, data []byte) {
	end := bytes.LastIndexAny(data, "\n\r") + 1
	if end == 0 && len(data) > searchPart {
		end = len(data) - len(s.text) + 1
	}
	s.find(stream, data[:end], s.limit)
	s.lines[stream].drop(data, end)
}

// find adds the hits in data until there are most.
func (s *search) find(stream uint8, data []byte, most int) {
	s.reset(data)
	for from := 0; len(s.hits) < most; {
		at := s.next(from)
		if at < 0 {
			return
		}
		from = at + len(s.text)
		before, after := data[:at], data[from:]
		before = before[max(bytes.LastIndexAny(before, "\n\r")+1, len(before)-hitContext):]
		if i := bytes.IndexAny(after, "\n\r"); i >= 0 {
			after = after[:i]
		}
		s.hits = append(s.hits, api.LogHit{
			Stream: streamName(stream), Offset: s.lines[stream].offset(at),
			Before: string(before), Match: string(data[at:from]), After: string(after[:min(len(after), hitContext)]),
		})
	}
}

// finish searches the incomplete lines and returns all hits in order; there may be more than the
// limit if several streams had incomplete lines.
func (s *search) finish() []api.LogHit {
	full := s.full()
	for stream := range s.lines {
		if u := &s.lines[stream]; !full || len(s.hits) > 0 && u.offset(0) < s.hits[len(s.hits)-1].Offset {
			s.find(uint8(stream), u.data, 2*s.limit)
		}
	}
	slices.SortStableFunc(s.hits, func(a, b api.LogHit) int { return cmp.Compare(a.Offset, b.Offset) })
	return s.hits
}

func (u *pendingLine) offset(at int) int64 {
	for i := len(u.parts) - 1; i >= 0; i-- {
		if p := u.parts[i]; p.at <= at {
			return p.offset + int64(at-p.at)
		}
	}
	return 0
}

// drop removes the first n bytes of the data.
func (u *pendingLine) drop(data []byte, n int) {
	offset := u.offset(n)
	kept := u.parts[:0]
	for _, p := range u.parts {
		if p.at > n {
			kept = append(kept, linePart{p.at - n, p.offset})
		}
	}
	u.data = append(u.data[:0], data[n:]...)
	if u.parts = kept; len(u.data) > 0 {
		u.parts = slices.Insert(u.parts, 0, linePart{0, offset})
	}
}
