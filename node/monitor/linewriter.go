package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"mlfnode/node/api"
)

// lineWriter writes a stream of JSON lines. A complete stream ends with an empty line; a stream
// without one was cut.
type lineWriter struct {
	w       *bufio.Writer
	h       http.ResponseWriter
	started bool // a line was written
}

func newLineWriter(w http.ResponseWriter) *lineWriter {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lineWriter{w: bufio.NewWriterSize(w, 64<<10), h: w}
}

// write writes one value. An error means that the client has gone.
func (l *lineWriter) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.started = true
	_, err = fmt.Fprintf(l.w, `{"v":%s}`+"\n", b) // an api.Line; not by its own encoder, which would check b again
	return err
}

// flush sends what has been written so far.
func (l *lineWriter) flush() error {
	if err := l.w.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(l.h).Flush()
}

// close ends the stream: as complete, or with the error that cut it. An error before the first line
// is sent as a response with its own status. If ctx has ended, close writes nothing, so that the
// client sees that the node went away.
func (l *lineWriter) close(ctx context.Context, err error) {
	if ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if err != nil && !l.started {
		sendError(l.h, err)
		return
	}
	if err != nil {
		b, _ := json.Marshal(api.Line{Error: asError(err)}) // texts and numbers
		_, _ = l.w.Write(b)
	}
	_ = l.w.WriteByte('\n')
	_ = l.flush() // the client has gone if this fails
}
