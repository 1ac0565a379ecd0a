package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// ErrLost is returned by Client methods when the connection to the node is lost: the caller may
// reconnect and continue.
var ErrLost = errors.New("the node went away")

// Client talks to one node.
type Client struct {
	http   *http.Client
	base   string
	bearer string // sent with each request when set
}

// NewClient makes a client that reaches the node through dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
	}
	return &Client{http: &http.Client{Transport: transport}, base: "http://node"}
}

// dialTime bounds connecting to one address of a master.
const dialTime = 5 * time.Second

// NewRemote returns a client of a master at one of the addresses, HOST:PORT, which are tried in
// turn. cfg ensures that the peer is the right master; bearer is sent to it, and may be empty.
func NewRemote(addresses []string, cfg *tls.Config, bearer string) *Client {
	return NewRemoteAt(func() []string { return addresses }, cfg, bearer)
}

// NewRemoteAt is like NewRemote, for a master whose addresses may change: each connection looks
// them up again.
func NewRemoteAt(addresses func() []string, cfg *tls.Config, bearer string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var refusals []error
		for _, address := range addresses() {
			conn, err := dialTLS(ctx, address, cfg)
			if err == nil {
				return conn, nil
			}
			refusals = append(refusals, err)
		}
		return nil, errors.Join(refusals...)
	}
	transport := &http.Transport{DialTLSContext: dial} // over a network, lists are worth compressing
	return &Client{http: &http.Client{Transport: transport}, base: "https://master", bearer: bearer}
}

func dialTLS(ctx context.Context, address string, cfg *tls.Config) (net.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	d := tls.Dialer{Config: cfg}
	return d.DialContext(ctx, "tcp", address)
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Node returns the node's description of itself.
func (c *Client) Node(ctx context.Context) (Node, error) {
	return get[Node](ctx, c, PathNode, nil)
}

// HasBundle reports whether the bundle is stored.
func (c *Client) HasBundle(ctx context.Context, digest string) (bool, error) {
	resp, err := c.do(ctx, http.MethodHead, PathBundles+digest, nil, nil)
	if status := (*Error)(nil); errors.As(err, &status) && status.Status == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// PutBundle stores a bundle; the node checks the digest. It does not close r, so that the caller
// can send it again.
func (c *Client) PutBundle(ctx context.Context, digest string, r io.Reader) error {
	resp, err := c.do(ctx, http.MethodPut, PathBundles+digest, nil, io.NopCloser(r))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Submit starts a sweep. When it returns, the sweep is on disk.
func (c *Client) Submit(ctx context.Context, s Submit) (Sweep, error) {
	return post[Sweep](ctx, c, PathSweeps, s.submission())
}

// Sweeps lists all sweeps, the oldest first.
func (c *Client) Sweeps(ctx context.Context) ([]Sweep, error) {
	return get[[]Sweep](ctx, c, PathSweeps, nil)
}

// Sweep returns one sweep; id may be Last.
func (c *Client) Sweep(ctx context.Context, id grid.SweepID) (Sweep, error) {
	return get[Sweep](ctx, c, sweepPath(PathSweep, id), nil)
}

// Describe returns what a sweep runs and where it came from. It needs an operator's token, because
// the words of a command may be secrets.
func (c *Client) Describe(ctx context.Context, id grid.SweepID) (Description, error) {
	return get[Description](ctx, c, sweepPath(PathDescribe, id), nil)
}

// SweepBundle streams the files that a sweep was submitted with. It needs an operator's token.
func (c *Client) SweepBundle(ctx context.Context, id grid.SweepID) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, sweepPath(PathBundle, id), nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Pause keeps further trials of a sweep from starting; running ones continue to their end.
func (c *Client) Pause(ctx context.Context, id grid.SweepID) (Done, error) {
	return c.act(ctx, id, "pause", nil)
}

// Kill pauses the sweep and kills its running trials, which count as not run.
func (c *Client) Kill(ctx context.Context, id grid.SweepID) (Done, error) {
	return c.act(ctx, id, "kill", nil)
}

// Resume continues a paused sweep.
func (c *Client) Resume(ctx context.Context, id grid.SweepID) (Done, error) {
	return c.act(ctx, id, "resume", nil)
}

// Cancel ends a sweep: running trials are stopped, and the others never run. With save, running
// trials may save their state first.
func (c *Client) Cancel(ctx context.Context, id grid.SweepID, save bool) (Done, error) {
	if save {
		return c.act(ctx, id, "cancel?save=true", nil)
	}
	return c.act(ctx, id, "cancel", nil)
}

// CancelTrial ends one trial: a running attempt is stopped, and the trial does not run again.
func (c *Client) CancelTrial(ctx context.Context, id grid.TrialID) (Done, error) {
	return post[Done](ctx, c, trialPath(PathCancel, id), nil)
}

// Remove deletes a sweep that does not run from the store, with its events, output, artifacts and
// results.
func (c *Client) Remove(ctx context.Context, id grid.SweepID) error {
	resp, err := c.do(ctx, http.MethodDelete, sweepPath(PathSweep, id), nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Retry runs trials again that did not succeed.
func (c *Client) Retry(ctx context.Context, id grid.SweepID, r Retry) (Done, error) {
	return c.act(ctx, id, "retry", r)
}

// Extend adds values to axes; only the new points run.
func (c *Client) Extend(ctx context.Context, id grid.SweepID, e Extend) (Done, error) {
	return c.act(ctx, id, "extend", e)
}

// Set changes the priority of a sweep and how many of its trials may run at a time.
func (c *Client) Set(ctx context.Context, id grid.SweepID, s Set) (Done, error) {
	return c.act(ctx, id, "set", s)
}

// Trials streams the trials that the query selects.
func (c *Client) Trials(ctx context.Context, id grid.SweepID, q TrialQuery) iter.Seq2[Trial, error] {
	return stream[Trial](ctx, c, sweepPath(PathTrials, id), q.values())
}

// TrialsWith is like Trials, for trials of which only these fields are set: fields of the API's
// tables, p[KEY] for a parameter and m[NAME] for a metric, at most MaxFieldsQuery.
func (c *Client) TrialsWith(ctx context.Context, id grid.SweepID, q TrialQuery, fields []string) iter.Seq2[Trial, error] {
	return func(yield func(Trial, error) bool) {
		v := q.values()
		v["field"] = fields
		u := Prefix + sweepPath(PathTrials, id)
		resp, err := c.send(ctx, http.MethodGet, u, v, nil, "application/x-ndjson")
		if err != nil {
			yield(Trial{}, err)
			return
		}
		defer resp.Body.Close()
		r := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			raw, err := r.ReadBytes('\n')
			if err == io.EOF && len(raw) == 0 {
				return // a list that is cut ends with another error
			}
			if err != nil {
				yield(Trial{}, lost(ctx, err))
				return
			}
			t, err := decodeFields(raw, fields)
			if !yield(t, err) || err != nil {
				return
			}
		}
	}
}

// decodeFields decodes an object with these fields of a trial.
func decodeFields(raw []byte, fields []string) (t Trial, err error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return t, fmt.Errorf("decode line %.60q: %w", raw, err)
	}
	for _, name := range fields {
		value := values[name]
		if len(value) == 0 || string(value) == "null" {
			continue
		}
		name = strings.TrimSuffix(name, "]")
		if key, found := strings.CutPrefix(name, "m["); found {
			if t.Metrics == nil {
				t.Metrics = grid.Metric{}
			}
			t.Metrics[key] = value
			continue
		}
		if key, found := strings.CutPrefix(name, "p["); found {
			t.Params = append(t.Params, space.Param{Key: key})
			err = t.Params[len(t.Params)-1].Value.UnmarshalJSON(value)
		} else if to := t.field(name); to != nil {
			err = json.Unmarshal(value, to)
		}
		if err != nil {
			return t, fmt.Errorf("decode %s of line %.60q: %w", name, raw, err)
		}
	}
	return t, nil
}

// field returns a pointer to what a column of the API's tables is about, nil for an unknown name.
func (t *Trial) field(name string) any {
	switch name {
	case "index":
		return &t.Index
	case "state":
		return &t.State
	case "attempt":
		return &t.Attempt
	case "attempts":
		return &t.Attempts
	case "node":
		return &t.Node
	case "class":
		return &t.Class
	case "exit_code":
		return &t.ExitCode
	case "reason":
		return &t.Reason
	case "started":
		return &t.Started
	case "ended":
		return &t.Ended
	case "wall_seconds":
		return &t.Usage.Wall
	case "cpu_seconds":
		return &t.Usage.CPU
	case "peak_memory_bytes":
		return &t.Usage.Memory
	}
	return nil
}

// values returns the query in the form of a URL query.
func (q *TrialQuery) values() url.Values {
	v := url.Values{}
	maps.Copy(v, q.Where)
	for _, s := range q.States {
		v.Add("state", string(s))
	}
	if q.Class != "" {
		v.Set("class", string(q.Class))
	}
	if q.Sort != "" {
		v.Set("sort", q.Sort)
	}
	if q.Desc {
		v.Set("desc", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.FormatInt(q.Limit, 10))
	}
	if q.Offset > 0 {
		v.Set("offset", strconv.FormatInt(q.Offset, 10))
	}
	return v
}

// Attempts lists every known attempt of a trial, in order, from the first.
func (c *Client) Attempts(ctx context.Context, id grid.TrialID) ([]Attempt, error) {
	return get[[]Attempt](ctx, c, trialPath(PathAttempts, id), nil)
}

// Curves returns the curves of the metrics of all attempts of a trial.
func (c *Client) Curves(ctx context.Context, id grid.TrialID) ([]Curve, error) {
	return get[[]Curve](ctx, c, trialPath(PathCurves, id), nil)
}

// Explain returns the state of a trial and, if the trial is waiting, the reasons.
func (c *Client) Explain(ctx context.Context, id grid.TrialID) (Explanation, error) {
	return get[Explanation](ctx, c, trialPath(PathExplain, id), nil)
}

// Chart returns a chart of a sweep, as JSON; the query may be nil.
func (c *Client) Chart(ctx context.Context, id grid.SweepID, name string, q url.Values) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, sweepPath(PathCharts, id)+name, q)
}

// Logs streams stored and, with Follow, live output.
func (c *Client) Logs(ctx context.Context, id grid.SweepID, q LogQuery) iter.Seq2[Output, error] {
	v := url.Values{"index": {strconv.FormatInt(q.Index, 10)}}
	if q.Attempt > 0 {
		v.Set("attempt", strconv.Itoa(q.Attempt))
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	return stream[Output](ctx, c, sweepPath(PathLogs, id), v)
}

// Watch streams what happens in a sweep until it is at rest: finished, cancelled, or paused with
// nothing running. Output starts after the log position after; 0 starts at the beginning of the
// sweep. Start at Sweep.LogNext to see only new output, and at Output.Seq to continue (through a
// SeenOutput, since a position holds many pieces). All output is sent before the last update.
func (c *Client) Watch(ctx context.Context, id grid.SweepID, after uint64) iter.Seq2[Update, error] {
	v := url.Values{}
	if after > 0 {
		v.Set("after", strconv.FormatUint(after, 10))
	}
	return stream[Update](ctx, c, sweepPath(PathWatch, id), v)
}

// Artifacts returns a tar stream of the files that trials left, each in a folder named by its
// trial's index. Index -1 selects all trials.
func (c *Client) Artifacts(ctx context.Context, id grid.SweepID, index int64) (io.ReadCloser, error) {
	v := url.Values{"index": {strconv.FormatInt(index, 10)}}
	resp, err := c.do(ctx, http.MethodGet, sweepPath(PathArtifacts, id), v, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Backup streams a backup of the master. Only the owner of the master's state folder may request
// it.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, PathBackup, nil, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) act(ctx context.Context, id grid.SweepID, action string, body any) (Done, error) {
	path := strings.Replace(sweepPath(PathAction, id), "{action}", action, 1)
	return post[Done](ctx, c, path, body)
}

// do sends one request under OldPrefix.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	return c.send(ctx, method, OldPrefix+path, q, body, "")
}

// send sends one request, for an answer of the media type accept unless that is empty, and returns
// every response that is not a success as an *Error.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body io.Reader, accept string) (*http.Response, error) {
	u := c.base + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", method, path, err)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(answer); err != nil || answer.Msg == "" {
		answer.Msg = "the node answered " + resp.Status
	}
	return nil, answer
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

func trialPath(pattern string, id grid.TrialID) string {
	return strings.Replace(sweepPath(pattern, id.Sweep), "{index}", strconv.FormatInt(id.Index, 10), 1)
}

func sweepPath(pattern string, id grid.SweepID) string {
	return strings.Replace(pattern, "{sweep}", url.PathEscape(string(id)), 1)
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	resp, err := c.do(ctx, http.MethodGet, path, q, nil)
	return decode[T](ctx, resp, err)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("encode request %s: %w", path, err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, nil, bytes.NewReader(b))
	return decode[T](ctx, resp, err)
}

func decode[T any](ctx context.Context, resp *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return v, lost(ctx, err)
	}
	return v, nil
}

// stream reads JSON lines until the node ends the stream properly, with an empty line.
func stream[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		resp, err := c.do(ctx, http.MethodGet, path, q, nil)
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		r := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			raw, err := r.ReadBytes('\n')
			if err != nil {
				yield(zero, lost(ctx, err))
				return
			}
			if len(raw) == 1 {
				return
			}
			v, err := decodeLine[T](raw)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

func decodeLine[T any](raw []byte) (T, error) {
	var line struct {
		Value T      `json:"v"` // as in Line
		Error *Error `json:"error"`
	}
	if err := json.Unmarshal(raw, &line); err != nil {
		return line.Value, fmt.Errorf("decode line %.60q: %w", raw, err)
	}
	if line.Error != nil {
		return line.Value, line.Error
	}
	return line.Value, nil
}
