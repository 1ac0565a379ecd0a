package monitor

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"mlfnode/node/api"
)

// A list is either a bounded page as JSON, or everything that the query selects as CSV or JSON
// lines; the Accept header decides. CSV and lines are sent as they are produced; if a list cannot
// be completed, the connection is cut, which tells the client.

// preferredMedia returns the media type of a list: the one that the client prefers, or JSON if it
// has no preference or no other type is possible.
func preferredMedia(r *http.Request) string {
	best, most := mediaJSON, 0.0
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		media, params, _ := mime.ParseMediaType(part)
		q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
		if err != nil || !slices.Contains([]string{mediaCSV, mediaLines, mediaJSON, "*/*", "application/*", "text/*"},
			media) {
			continue
		}
		if strings.HasSuffix(media, "*") { // types that are named take precedence
			q -= 1e-6
			media = map[bool]string{true: mediaCSV, false: mediaJSON}[media == "text/*"]
		}
		if q > most {
			best, most = media, q
		}
	}
	return best
}

// column is one column of a list of Ts.
type column[T any] struct {
	name string
	of   func(*T) any
}

// writeAll writes all rows as CSV or as lines; lines hold the whole row, or only the columns if the
// client has named them. An error before anything is sent is sent as a problem.
func writeAll[T any](
	w http.ResponseWriter, media string, columns []column[T], named bool, rows func(put func(*T) error) error,
) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Cache-Control", "no-store")
	out := &counter{w: w}
	var err error
	if media == mediaCSV {
		err = writeCSV(out, columns, rows)
	} else {
		lines := json.NewEncoder(out)
		heads := make([][]byte, len(columns))
		for i, c := range columns {
			name, _ := json.Marshal(c.name) // a string can always be encoded
			heads[i] = append(append([]byte(map[bool]string{true: "{", false: ","}[i == 0]), name...), ':')
		}
		err = rows(func(v *T) error {
			if !named {
				return lines.Encode(v)
			}
			var line []byte
			for i, c := range columns {
				value, err := json.Marshal(c.of(v))
				if err != nil {
					return err
				}
				line = append(append(line, heads[i]...), value...)
			}
			_, err := out.Write(append(line, "}\n"...))
			return err
		})
	}
	switch {
	case err == nil:
	case out.n == 0:
		sendError(w, err)
	default:
		panic(http.ErrAbortHandler)
	}
}

// counter counts the bytes that are written.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

func writeCSV[T any](w io.Writer, columns []column[T], rows func(put func(*T) error) error) error {
	out := csv.NewWriter(w)
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = cell(c.name)
	}
	if err := out.Write(cells); err != nil {
		return err
	}
	err := rows(func(v *T) error {
		for i, c := range columns {
			cells[i] = cell(c.of(v))
		}
		return out.Write(cells)
	})
	if err != nil {
		return err // the buffer is discarded, too: a list without its end is worthless
	}
	out.Flush()
	return out.Error()
}

// cell formats a value for a spreadsheet: a text that it would take for a formula gets an
// apostrophe.
func cell(v any) string {
	b, err := json.Marshal(v)
	if err != nil || string(b) == "null" {
		return ""
	}
	var text string
	if json.Unmarshal(b, &text) != nil {
		return string(b) // a number, a Boolean or a structure
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil && text != "" &&
		strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// pageLimit returns the limit of a page; 0 means no limit, as for CSV and lines without the
// parameter.
func pageLimit(r *http.Request, media string, most int64) (limit int64, err error) {
	limit = api.DefaultPage
	if media != mediaJSON {
		limit, most = 0, math.MaxInt64
	}
	if text := r.FormValue("limit"); text != "" {
		if limit, err = strconv.ParseInt(text, 10, 64); err != nil || limit < 1 || limit > most {
			return 0, badRequest(fmt.Sprintf("limit %.20q is not a number from 1 to %d", text, most),
				"ask for the next page, or for text/csv or "+mediaLines+", which have no pages")
		}
	}
	return limit, nil
}
