package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// logHandlers answer calls about the stored output of trials.
type logHandlers struct {
	lookup  *lookup
	store   *jetstream.Store
	charts  *chartViews // determine which trials a filter selects
	rest    *quiescence
	indexes *logIndexes
	log     *slog.Logger
}

// streamNumber returns the number of the stream with a name; 0 stands for all streams.
func streamNumber(name string) (uint8, error) {
	if name == "" || name == "all" {
		return 0, nil
	}
	for n := uint8(1); n <= 3; n++ {
		if streamName(n) == name {
			return n, nil
		}
	}
	return 0, badRequest(fmt.Sprintf("%.60q is not a stream", name),
		"streams are stdout, stderr and setup; without one all are given")
}

// intParam parses a number between least and most from the query.
func intParam(r *http.Request, name string, otherwise, least, most int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, badRequest(fmt.Sprintf("%s %.30q is not a number from %d to %d", name, text, least, most), "")
	}
	return n, nil
}

// maxOffset is more than any attempt prints.
const maxOffset = 1 << 60

// window answers with a part of an attempt's output.
func (h *logHandlers) window(r *http.Request) (api.LogWindow, error) {
	w := api.LogWindow{Pieces: []api.LogPiece{}}
	t, stream, err := h.lookup.trialStream(r)
	if err != nil {
		return w, err
	}
	limit, err := intParam(r, "limit", api.DefaultWindow, 1, api.MaxWindow)
	if err != nil {
		return w, err
	}
	offset, err := intParam(r, "offset", 0, 0, maxOffset)
	if err != nil {
		return w, err
	}
	tail, err := intParam(r, "tail", -1, 0, maxOffset)
	if err != nil {
		return w, err
	}
	leave, err := h.indexes.readers.acquire(r.Context())
	if err != nil {
		return w, err
	}
	defer leave()
	index := h.indexes.get(t)
	complete := false
	end, err := withPartialResult(r.Context(), h.indexes.timeout, func(ctx context.Context) (position, error) {
		end, err := index.extend(ctx, h.store.Logs, t)
		complete = err == nil
		return end, err
	})
	if err != nil {
		return w, fmt.Errorf("read the output of trial %d: %w", t.index, err)
	}
	w.Attempt, w.Total, w.Ended, w.Cut = t.number, end.of(stream), t.ended && complete, t.ref.Cut
	if stream > 0 {
		w.Stream = streamName(stream)
	}
	if t.ended {
		kept := keptOutput(r.Context(), h.store, h.log)
		w.Gone = keptOutputOf(t.ref, kept.First(t.node)).Gone
	}
	if tail >= 0 {
		offset = max(0, w.Total-tail)
	}
	w.Offset = min(offset, w.Total)
	w.Next = w.Offset
	if w.Offset == w.Total {
		return w, nil
	}
	_, err = withPartialResult(r.Context(), h.indexes.timeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, index.walk(ctx, h.store.Logs, t, stream, w.Offset,
			func(_ uint64, p position, c *jetstream.Chunk) error {
				if stream == 0 || c.Stream == stream {
					return appendChunk(&w, p.of(stream), c, limit)
				}
				return nil
			})
	})
	return w, err
}

// withPartialResult calls fn with a context that ends after a time limit. Reaching the limit is not
// an error: fn then returns what it has.
func withPartialResult[T any](ctx context.Context, most time.Duration, fn func(context.Context) (T, error)) (T, error) {
	short, stop := context.WithTimeout(ctx, most)
	defer stop()
	v, err := fn(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		err = nil
	}
	return v, err
}

// appendChunk adds the part of a chunk that lies in the window, and returns errEnough after the end
// of the window.
func appendChunk(w *api.LogWindow, at int64, c *jetstream.Chunk, limit int64) error {
	data := c.Data
	if before := w.Next - at; before > 0 {
		if before >= int64(len(data)) {
			return nil
		}
		data, at = data[before:], w.Next
	}
	if len(w.Pieces) == 0 && at > w.Offset { // the bytes before it have been removed
		w.Offset = at
	}
	room := w.Offset + limit - at
	if room <= 0 {
		return errEnough
	}
	data = data[:min(int64(len(data)), room)]
	name := streamName(c.Stream)
	w.Next = at + int64(len(data))
	if n := len(w.Pieces); n > 0 && w.Pieces[n-1].Stream == name &&
		w.Pieces[n-1].Offset+int64(len(w.Pieces[n-1].Data)) == at {
		w.Pieces[n-1].Data = append(w.Pieces[n-1].Data, data...)
		return nil
	}
	w.Pieces = append(w.Pieces,
		api.LogPiece{Stream: name, Offset: at, Time: *micros(max(1, c.Time)), Data: append([]byte(nil), data...)})
	return nil
}

// text sends the whole output of an attempt as a file.
func (h *logHandlers) text(w http.ResponseWriter, r *http.Request) {
	t, stream, err := h.lookup.trialStream(r)
	if err != nil {
		sendError(w, err)
		return
	}
	download(w, fmt.Sprintf("%s-%d.log", t.sweep, t.index), mediaText)
	err = t.read(r.Context(), h.store.Logs, logMark{}, func(_ uint64, _ position, c *jetstream.Chunk) error {
		if stream > 0 && c.Stream != stream {
			return nil
		}
		_, err := w.Write(c.Data)
		return err
	}, nil)
	if err != nil {
		panic(http.ErrAbortHandler) // the client sees a cut file
	}
}

// download sets the headers of a file to save, so that no browser shows it as a page of this node.
func download(w http.ResponseWriter, name, media string) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("Content-Security-Policy", "sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}
