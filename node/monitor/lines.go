package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"

	"mlfnode/node/api"
)

// lines writes a stream of JSON lines. The stream ends in good order with an empty line; a stream without one was cut.
type lines struct {
	w     *bufio.Writer
	h     http.ResponseWriter
	begun bool // a line was written
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{w: bufio.NewWriterSize(w, 64<<10), h: w}
}

// put writes one value. The error means that the client has gone.
func (l *lines) put(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.line(api.Line{Value: b})
}

func (l *lines) line(v api.Line) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.begun = true
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	return l.w.WriteByte('\n')
}

// flush sends what has been written so far.
func (l *lines) flush() error {
	if err := l.w.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(l.h).Flush()
}

// end closes the stream: in good order, or with the error that cut it. An error before the first line is a refusal with a status of its
// own. When ctx has ended nothing is written, so that the client sees that the node went away.
func (l *lines) end(ctx context.Context, err error) {
	if ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if err != nil && !l.begun {
		refuse(l.h, err)
		return
	}
	if err != nil {
		_ = l.line(api.Line{Error: asError(err)})
	} else {
		_ = l.w.WriteByte('\n')
	}
	_ = l.flush() // the client has gone if this fails
}
