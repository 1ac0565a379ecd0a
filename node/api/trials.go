package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// PathRunFiles is where a node puts the files that one of its runs has left.
const PathRunFiles = "/runs/{sweep}/{index}/{run}/artifacts"

// Trials reads the trials of sweeps with their results, and cancels them.
type Trials struct{ client *Client }

// Trials returns the calls about trials.
func (c *Client) Trials() Trials { return Trials{c} }

// List streams the trials that the query selects.
func (t Trials) List(ctx context.Context, id grid.SweepID, q TrialQuery) iter.Seq2[Trial, error] {
	return stream[Trial](ctx, t.client, sweepPath(PathTrials, id), q.values())
}

// ListFields is like List, for trials of which only these fields are set: fields of the API's
// tables, p[KEY] for a parameter and m[NAME] for a metric, at most MaxFieldsQuery.
func (t Trials) ListFields(ctx context.Context, id grid.SweepID, q TrialQuery, fields []string) iter.Seq2[Trial, error] {
	return func(yield func(Trial, error) bool) {
		v := q.values()
		v["field"] = fields
		u := Prefix + sweepPath(PathTrials, id)
		resp, err := t.client.send(ctx, http.MethodGet, u, v, nil, "application/x-ndjson")
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

// Table returns a page of the selected trials, with these columns. Numbers are json.Number, with
// all of their digits.
func (t Trials) Table(ctx context.Context, id grid.SweepID, q TrialQuery, fields []string) (TrialTable, error) {
	v := q.values()
	v["field"] = fields
	return getJSON[TrialTable](ctx, t.client, sweepPath(PathTrials, id), v)
}

// Attempts lists every known attempt of a trial, in order, from the first.
func (t Trials) Attempts(ctx context.Context, id grid.TrialID) ([]Attempt, error) {
	return get[[]Attempt](ctx, t.client, trialPath(PathAttempts, id), nil)
}

// Curves returns the curves of the metrics of all attempts of a trial.
func (t Trials) Curves(ctx context.Context, id grid.TrialID) ([]Curve, error) {
	return get[[]Curve](ctx, t.client, trialPath(PathCurves, id), nil)
}

// Explain returns the state of a trial and, if the trial is waiting, the reasons.
func (t Trials) Explain(ctx context.Context, id grid.TrialID) (Explanation, error) {
	return get[Explanation](ctx, t.client, trialPath(PathExplain, id), nil)
}

// Cancel ends one trial: a running attempt is stopped, and the trial does not run again.
func (t Trials) Cancel(ctx context.Context, id grid.TrialID) (Done, error) {
	return post[Done](ctx, t.client, trialPath(PathCancel, id), nil)
}

// Failures returns the failed trials of a sweep, grouped by class.
func (t Trials) Failures(ctx context.Context, id grid.SweepID) (Failures, error) {
	return get[Failures](ctx, t.client, sweepPath(PathFailures, id), nil)
}

// Chart returns a chart of a sweep, as JSON; the query may be nil.
func (t Trials) Chart(ctx context.Context, id grid.SweepID, name string, q url.Values) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, t.client, sweepPath(PathCharts, id)+name, q)
}

// Artifacts returns a tar stream of the files that trials left, each in a folder named by its
// trial's index. Index -1 selects all trials.
func (t Trials) Artifacts(ctx context.Context, id grid.SweepID, index int64) (io.ReadCloser, error) {
	v := url.Values{"index": {strconv.FormatInt(index, 10)}}
	return body(t.client.do(ctx, http.MethodGet, sweepPath(PathArtifacts, id), v, nil))
}

// PutArtifacts stores the artifacts of a run. The client must present the certificate of the run's
// node.
func (t Trials) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	path := strings.NewReplacer(
		"{sweep}", url.PathEscape(string(id.Sweep)), "{index}", strconv.FormatInt(id.Index, 10), "{run}",
		url.PathEscape(run),
	).Replace(PathRunFiles)
	return discard(t.client.do(ctx, http.MethodPut, path, nil, io.NopCloser(r)))
}
