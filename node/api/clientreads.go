package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
)

// Calls used by live views. All but Preview use Prefix.

const (
	eventsQuiet   = 45 * time.Second // an event stream that is silent for this long is dead: there is a beat every 15 s
	longestEvent  = 16 << 20         // bytes in a line
	eventsMissing = "the stream of events was cut"
)

// SweepPage returns the newest sweeps, at most limit of them.
func (c *Client) SweepPage(ctx context.Context, limit int) (SweepList, error) {
	return getJSON[SweepList](ctx, c, PathSweeps, url.Values{"limit": {strconv.Itoa(limit)}})
}

// TrialTable returns a page of the selected trials, with these columns. Numbers are json.Number,
// with all of their digits.
func (c *Client) TrialTable(ctx context.Context, id grid.SweepID, q TrialQuery, fields []string) (TrialTable, error) {
	v := q.values()
	v["field"] = fields
	return getJSON[TrialTable](ctx, c, sweepPath(PathTrials, id), v)
}

// WindowQuery selects a part of an attempt's output.
type WindowQuery struct {
	Attempt int   // 0 is the attempt that determines the trial's state
	Offset  int64 // of the first byte
	Tail    int64 // unless 0, start this many bytes before the end instead
	Limit   int64 // bytes
}

// LogWindow returns a part of an attempt's output.
func (c *Client) LogWindow(ctx context.Context, id grid.TrialID, q WindowQuery) (LogWindow, error) {
	v := attemptQuery(q.Attempt)
	v.Set("limit", strconv.FormatInt(q.Limit, 10))
	if q.Tail > 0 {
		v.Set("tail", strconv.FormatInt(q.Tail, 10))
	} else {
		v.Set("offset", strconv.FormatInt(q.Offset, 10))
	}
	return getJSON[LogWindow](ctx, c, trialPath(PathLog, id), v)
}

// SearchLog searches an attempt's output for a text, starting at an offset.
func (c *Client) SearchLog(ctx context.Context, id grid.TrialID, attempt int, text string, offset int64) (LogHits, error) {
	v := attemptQuery(attempt)
	v.Set("q", text)
	v.Set("offset", strconv.FormatInt(offset, 10))
	v.Set("limit", strconv.Itoa(MaxHits))
	return getJSON[LogHits](ctx, c, trialPath(PathLogSearch, id), v)
}

func attemptQuery(number int) url.Values {
	v := url.Values{}
	if number > 0 {
		v.Set("attempt", strconv.Itoa(number))
	}
	return v
}

// Preview returns what an action on a sweep would change, and changes nothing. The body is the
// action's.
func (c *Client) Preview(ctx context.Context, id grid.SweepID, action string, body any) (Done, error) {
	return c.act(ctx, id, action+"?dry_run=true", body)
}

// Events streams the states of topics: first their current states, then each change, until the
// stream is cut, which returns ErrLost, or ctx ends.
func (c *Client) Events(ctx context.Context, topics []string) iter.Seq2[Events, error] {
	return func(yield func(Events, error) bool) {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		dead := time.AfterFunc(eventsQuiet, func() { stop(fmt.Errorf("%w: %s", ErrLost, eventsMissing)) })
		defer dead.Stop()
		resp, err := c.send(ctx, http.MethodGet, Prefix+PathEvents, url.Values{"topics": {strings.Join(topics, ",")}}, nil, "")
		if err != nil {
			yield(Events{}, err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, longestEvent)
		for name := ""; lines.Scan(); {
			dead.Reset(eventsQuiet)
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "event":
				name = value
			case "data":
				e, err := decodeEvent(name, value)
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		err = fmt.Errorf("%w: %s", ErrLost, eventsMissing)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		yield(Events{}, err)
	}
}

// decodeEvent decodes an event into the field with the event's name. An unknown name sets no field.
func decodeEvent(name, data string) (e Events, err error) {
	key, err := json.Marshal(name)
	if err == nil {
		err = json.Unmarshal(fmt.Appendf(nil, "{%s:%s}", key, data), &e)
	}
	if err != nil {
		return e, fmt.Errorf("decode event %.20q: %w", name, err)
	}
	return e, nil
}

// getJSON is like get, under Prefix.
func getJSON[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	resp, err := c.send(ctx, http.MethodGet, Prefix+path, q, nil, "")
	return decode[T](ctx, resp, err)
}
