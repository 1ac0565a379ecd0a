package monitor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

const (
	// flowerTasks bounds the number of tasks that a list is made from, the newest ones: as many as
	// Flower kept by default for a long time.
	flowerTasks = 10_000
	// flowerBytes bounds the parameters, metrics and tracebacks of a list.
	flowerBytes = 64 << 20
)

// flowerHandlers answer the calls of Flower's API.
type flowerHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	healthy *health
	lists   semaphore // a list of tasks is made in memory
	workers *flowerWorkers
}

// routes returns the routes of Flower's API that read or revoke, with Flower's paths, parameters
// and answers.
func (h *flowerHandlers) routes() []route {
	refresh := []parameter{{"workername", "string", "only this worker"},
		{"status", "boolean", "only whether workers are there"}, {"refresh", "boolean", "answers are always fresh"}}
	list := []parameter{
		{"limit", "integer", "at most so many"}, {"offset", "integer", "pass over so many first"},
		{"sort_by", "string", "name, state, received or started, - before it for descending order"},
		{"workername", "string", "only of this worker"}, {"taskname", "string", "only of this name"},
		{"state", "string", "only in this state of Celery"},
		{"received_start", "string", "only from then on, YYYY-MM-DD HH:MM"},
		{"received_end", "string", "only until then"},
		{"search", "string",
			"words that all have to be there, as name:, state:, worker:, args:, kwargs: or result:, or anywhere"},
	}
	all := []route{
		{method: "GET", pattern: "/api/workers", access: mayRead, summary: "List nodes as workers", query: refresh,
			call: flowerCall[map[string]api.FlowerWorker](h.workers.list)},
		{method: "GET", pattern: "/api/tasks", access: mayRead, summary: "List trials as tasks, the newest first",
			query: list, call: flowerCall[map[string]api.FlowerTask](h.list)},
		{method: "GET", pattern: "/api/task/types", access: mayRead, summary: "List the names of tasks",
			call: flowerCall[api.FlowerTypes](h.types)},
		{method: "GET", pattern: "/api/task/info/{id...}", access: mayRead, summary: "Show a trial as a task",
			call: flowerCall[api.FlowerTask](h.info)},
		{method: "GET", pattern: "/api/task/result/{id...}", access: mayRead, summary: "Show the result of a trial",
			query: []parameter{{"timeout", "number", "accepted and ignored"}},
			call:  flowerCall[api.FlowerResult](h.result)},
		{method: "GET", pattern: "/api/queues/length", access: mayRead, summary: "List active sweeps as queues",
			call: flowerCall[api.FlowerQueues](h.queues)},
		{method: "POST", pattern: "/api/task/revoke/{id...}", access: mayAct,
			summary: "Cancel a sweep, or the one trial of a sweep",
			query: []parameter{{"terminate", "boolean", "also what runs"},
				{"signal", "string", "is the one of the task's settings"}},
			call: flowerCall[api.FlowerMessage](h.revoke)},
		{method: "GET", pattern: "/metrics", access: mayRead, summary: "Export Flower's metrics for Prometheus",
			call: call{handler: h.workers.metrics, media: []string{mediaText}}},
		{method: "GET", pattern: "/healthcheck", access: mayNothing, summary: "Answer OK if the node is healthy",
			call: call{handler: h.health, media: []string{mediaText}}},
	}
	for i := range all {
		all[i].pattern, all[i].root, all[i].topic = api.PathFlower+all[i].pattern, true, topicOthers
	}
	return all
}

// flowerCall returns the call of a function whose result has the shape of a T. Errors are plain
// text, as Flower's are.
func flowerCall[T any](fn func(*http.Request) (any, error)) call {
	c := callFor(func(*http.Request) (T, error) { panic("only the types are of interest") })
	c.handler = func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		var plain *flowerError
		switch {
		case errors.As(err, &plain):
			w.Header().Set("Content-Type", mediaText)
			w.WriteHeader(plain.status)
			_, _ = io.WriteString(w, plain.text) // the client has gone if this fails
		case err != nil:
			sendError(w, err)
		default:
			sendJSON(w, r, v)
		}
	}
	return c
}

// flowerError is an error in Flower's words.
type flowerError struct {
	status int
	text   string
}

// Error returns the text.
func (e *flowerError) Error() string { return e.text }

func flowerRefusal(status int, format string, v ...any) error {
	return &flowerError{status, fmt.Sprintf(format, v...)}
}

func (h *flowerHandlers) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", mediaText)
	if h.healthy.check() != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "OK") // the client has gone if this fails
}

// flowerState returns the state in Celery's terms that corresponds to the state of a trial.
func flowerState(state grid.State, attempts int) string {
	switch {
	case state == grid.Running:
		return "STARTED"
	case state == grid.Succeeded:
		return "SUCCESS"
	case state == grid.Failed:
		return "FAILURE"
	case state == grid.Cancelled:
		return "REVOKED"
	case attempts > 0:
		return "RETRY"
	}
	return "PENDING"
}

// newFlowerTask returns a trial as a task of Flower. The clock is the logical clock of the answer.
func newFlowerTask(s *grid.Sweep, t *grid.Trial, clock uint64) api.FlowerTask {
	v := apiTrial(s, t)
	sent := unixSeconds(s.Submitted.UnixMicro())
	f := api.FlowerTask{
		UUID: v.Trial, Name: s.TaskName(), State: flowerState(v.State, t.Attempts), Sent: &sent,
		Args: "()", Kwargs: pythonDict(v.Params), Retries: max(0, t.Attempts-1),
		Timestamp: sent, RoutingKey: string(s.ID), Clock: clock, Client: "mlfnode", Root: v.Trial, RootID: v.Trial,
		Children: []string{}, Worker: string(t.Node),
	}
	if t.Result.Started > 0 {
		f.Timestamp = unixSeconds(t.Result.Started)
		f.Started, f.Received = &f.Timestamp, &f.Timestamp
	}
	if t.Ended == 0 && f.State == "REVOKED" {
		ended := unixSeconds(s.Ended.UnixMicro())
		f.Revoked = &ended // with the sweep
	}
	if t.Ended == 0 {
		return f
	}
	ended, wall := unixSeconds(t.Ended), v.Usage.Wall
	started := f.Timestamp
	f.Started, f.Received, f.Timestamp = &started, &started, ended
	switch f.State {
	case "SUCCESS":
		text := "None" // the result of a task that returns nothing
		if metrics, err := json.Marshal(t.Result.Metrics); err == nil && t.Result.Metrics != nil {
			text = string(metrics)
		}
		f.Succeeded, f.Runtime, f.Result = &ended, &wall, &text
		return f
	case "FAILURE":
		f.Failed = &ended
	case "RETRY":
		f.Retried = &ended
	case "REVOKED":
		f.Revoked = &ended
		return f
	}
	first, _, _ := strings.Cut(v.Reason, "\n")
	f.Exception, f.Traceback = &first, &v.Reason
	return f
}

func unixSeconds(us int64) float64 { return float64(us) / 1e6 }

// pythonDict formats parameters as a Python dict.
func pythonDict(params space.Params) string {
	var b strings.Builder
	for i, p := range params {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(pythonString(p.Key) + ": ")
		switch p.Value.Kind {
		case space.Number, space.List:
			b.WriteString(p.Value.Text)
		case space.True:
			b.WriteString("True")
		case space.False:
			b.WriteString("False")
		default:
			b.WriteString(pythonString(p.Value.Text))
		}
	}
	return "{" + b.String() + "}"
}

func pythonString(s string) string {
	quoted := strconv.Quote(s)
	return "'" + strings.ReplaceAll(strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`), "'", `\'`) + "'"
}

// find returns the trial that a request names.
func (h *flowerHandlers) find(r *http.Request) (*grid.Sweep, grid.Trial, error) {
	id := r.PathValue("id")
	unknown := flowerRefusal(http.StatusNotFound, "Unknown task '%.80s'", id)
	at := strings.LastIndexByte(id, '/')
	if at < 0 {
		return nil, grid.Trial{}, unknown
	}
	rec, ok := h.master.Sweep(grid.SweepID(id[:at]))
	if !ok || rec.Sweep.Removing {
		return nil, grid.Trial{}, unknown
	}
	index, err := trialIndex(rec.Sweep, id[at+1:])
	if err != nil || index < 0 {
		return nil, grid.Trial{}, unknown
	}
	t, known, err := h.history.Trial(r.Context(), grid.TrialID{Sweep: rec.Sweep.ID, Index: index})
	if !known {
		t = grid.Trial{Index: index}
	}
	return rec.Sweep, t, err
}

func (h *flowerHandlers) info(r *http.Request) (any, error) {
	s, t, err := h.find(r)
	if err != nil {
		return nil, err
	}
	return newFlowerTask(s, &t, h.history.Applied()), nil
}

// result answers with the metrics of a trial. An unknown trial is pending: Celery does not
// distinguish the two.
func (h *flowerHandlers) result(r *http.Request) (any, error) {
	s, t, err := h.find(r)
	var none *flowerError
	if errors.As(err, &none) {
		return api.FlowerResult{Task: r.PathValue("id"), State: "PENDING"}, nil
	}
	if err != nil {
		return nil, err
	}
	f := newFlowerTask(s, &t, h.history.Applied())
	v := api.FlowerResult{Task: f.UUID, State: f.State, Traceback: f.Traceback}
	switch f.State {
	case "SUCCESS":
		v.Result = t.Result.Metrics
	case "FAILURE":
		v.Result = *f.Exception
	}
	return v, nil
}

// taskNames returns the names of the tasks of sweeps, sorted and without duplicates.
func taskNames(sweeps []*grid.Sweep) []string {
	names := []string{}
	for _, s := range sweeps {
		names = append(names, s.TaskName())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (h *flowerHandlers) types(*http.Request) (any, error) {
	return api.FlowerTypes{Types: taskNames(h.lookup.list("", ""))}, nil
}

func (h *flowerHandlers) queues(r *http.Request) (any, error) {
	all := api.FlowerQueues{Queues: []api.FlowerLength{}}
	for _, s := range h.lookup.list("", "") {
		if !s.Active() {
			continue
		}
		c, err := h.history.Counts(r.Context(), s.ID)
		if err != nil {
			return nil, err
		}
		all.Queues = append(all.Queues, api.FlowerLength{Name: string(s.ID), Messages: sweepWithCounts(s, &c).Pending})
	}
	return all, nil
}

// revoke cancels the sweep that a request names, or the sweep of the named trial if it has no other
// trials. As in Celery, the answer is the same whatever the name is, even if there is nothing left
// to revoke. Without terminate, running trials continue: for a single trial the call then does
// nothing, as in Celery; for a sweep of several the call is refused, because cancelling the sweep
// would end its running trials as well.
func (h *flowerHandlers) revoke(r *http.Request) (any, error) {
	id := r.PathValue("id")
	done := api.FlowerMessage{Message: fmt.Sprintf("Revoked '%.80s'", id)}
	terminate, _ := strconv.ParseBool(r.FormValue("terminate")) // absent means no
	name, trial, one := strings.Cut(id, "/")
	rec, ok := h.master.Sweep(grid.SweepID(name))
	if !ok {
		return done, nil
	}
	index := int64(-1)
	if one {
		var err error
		if index, err = trialIndex(rec.Sweep, trial); err != nil || index < 0 {
			return done, nil
		}
	}
	if rec.Sweep.State != grid.SweepRunning && rec.Sweep.State != grid.SweepPaused {
		return done, nil
	}
	several := rec.Sweep.Space.Count() != 1
	switch {
	case one && several:
		trial := grid.TrialID{Sweep: rec.Sweep.ID, Index: index}
		if t, _, err := h.history.Trial(r.Context(), trial); err != nil || t.State.Terminal() ||
			t.State == grid.Running && !terminate {
			return done, err
		}
		_, err := h.master.CancelTrial(r.Context(), trial)
		return done, err
	case !terminate:
		c, err := h.history.Counts(r.Context(), rec.Sweep.ID)
		if err != nil {
			return nil, err
		}
		if c.Running > 0 && several {
			return nil, flowerRefusal(http.StatusConflict, "Trials of '%s' run: revoke with terminate=true", name)
		}
		if c.Running > 0 {
			return done, nil
		}
	}
	_, err := h.master.Cancel(r.Context(), rec.Sweep.ID, false)
	return done, err
}

// orderedTasks returns tasks by name as JSON that keeps their order.
func orderedTasks(all []api.FlowerTask) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		task, err := json.Marshal(&all[i])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:", all[i].UUID)
		b.Write(task)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// flowerQuery selects tasks.
type flowerQuery struct {
	most                int // the number of selected tasks after which the search ends
	worker, name, state string
	from, to            float64 // 0 means no bound
	words               [][2]string
}

func (h *flowerHandlers) list(r *http.Request) (any, error) {
	q, by, err := parseFlowerQuery(r)
	if err != nil {
		return nil, err
	}
	var bounds [2]int
	for i, name := range []string{"offset", "limit"} {
		if text := r.FormValue(name); text != "" {
			if bounds[i], err = strconv.Atoi(text); err != nil {
				return nil, flowerRefusal(http.StatusBadRequest, "Invalid argument '%.40s' of type 'int'", text)
			}
		}
	}
	q.most = flowerTasks
	if r.FormValue("limit") != "" && by == "" {
		q.most = min(max(0, bounds[0]), flowerTasks) + min(max(0, bounds[1]), flowerTasks)
	}
	leave, err := h.lists.acquire(r.Context())
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := h.collect(r.Context(), q)
	if err != nil {
		return nil, err
	}
	if key := strings.TrimPrefix(by, "-"); key != "" {
		slices.SortStableFunc(all, func(a, b api.FlowerTask) int {
			if key != by {
				a, b = b, a
			}
			switch key {
			case "name":
				return cmp.Compare(a.Name, b.Name)
			case "state":
				return cmp.Compare(a.State, b.State)
			}
			return cmp.Compare(orZero(a.Started), orZero(b.Started)) // received is sorted the same way
		})
	}
	all = all[min(max(0, bounds[0]), len(all)):]
	if r.FormValue("limit") != "" {
		all = all[:min(max(0, bounds[1]), len(all))]
	}
	return orderedTasks(all)
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

func parseFlowerQuery(r *http.Request) (q flowerQuery, by string, err error) {
	value := func(name string) string {
		if v := r.FormValue(name); v != "All" {
			return v
		}
		return ""
	}
	q = flowerQuery{worker: value("workername"), name: value("taskname"), state: value("state")}
	by = r.FormValue("sort_by")
	if by != "" && !slices.Contains([]string{"name", "state", "received", "started"}, strings.TrimPrefix(by, "-")) {
		return q, by, flowerRefusal(http.StatusBadRequest,
			"Invalid sort_by '%.40s', expected one of name, received, started, state", by)
	}
	for name, to := range map[string]*float64{"received_start": &q.from, "received_end": &q.to} {
		if text := r.FormValue(name); text != "" {
			at, err := time.ParseInLocation("2006-01-02 15:04", text, time.Local)
			if err != nil {
				return q, by, flowerRefusal(http.StatusBadRequest,
					"Invalid received_start or received_end, expected format 'YYYY-MM-DD HH:MM'")
			}
			*to = unixSeconds(at.UnixMicro())
		}
	}
	for _, word := range strings.Fields(r.FormValue("search")) {
		if strings.ContainsAny(word, `()"`) || word == "OR" {
			return q, by, badRequest("a search can't have parentheses, quotes or OR",
				"give words that all have to be there")
		}
		field, text, ok := strings.Cut(word, ":")
		if !ok || !slices.Contains([]string{"name", "state", "worker", "args", "kwargs", "result"}, field) {
			field, text = "", word
		}
		if word != "AND" {
			q.words = append(q.words, [2]string{field, strings.ToLower(text)})
		}
	}
	return q, by, nil
}

// collect returns the tasks that match a query among the most recent ones: in the newest sweeps,
// the trials that started last.
func (h *flowerHandlers) collect(ctx context.Context, q flowerQuery) ([]api.FlowerTask, error) {
	all := []api.FlowerTask{}
	rest, size := int64(flowerTasks), 0
	for _, s := range h.lookup.list("", "") {
		if rest == 0 || len(all) >= q.most {
			break
		}
		if q.name != "" && q.name != s.TaskName() {
			continue
		}
		for t, err := range h.history.Trials(ctx, s.ID,
			history.Query{Sort: history.SortStarted, Desc: true, Limit: rest}) {
			if err != nil {
				return nil, err
			}
			rest--
			f := newFlowerTask(s, &t, h.history.Applied())
			if !q.selects(&f) {
				continue
			}
			if all = append(all, f); len(all) >= q.most {
				break
			}
			if size += textBytes(&f); size > flowerBytes {
				return nil, flowerRefusal(http.StatusBadRequest,
					"The tasks have more than %d MiB of text: ask for fewer with limit and no sort_by, state or search",
					flowerBytes>>20)
			}
		}
	}
	return all, nil
}

// textBytes returns the size of the texts of a task that its user and its program determine.
func textBytes(f *api.FlowerTask) int {
	n := len(f.Kwargs)
	for _, text := range []*string{f.Result, f.Exception, f.Traceback} {
		if text != nil {
			n += len(*text)
		}
	}
	return n
}

func (q *flowerQuery) selects(f *api.FlowerTask) bool {
	at := orZero(f.Received)
	if q.worker != "" && q.worker != f.Worker || q.state != "" && q.state != f.State || q.from > 0 && at < q.from ||
		q.to > 0 && at > q.to {
		return false
	}
	for _, w := range q.words {
		texts := map[string]string{"name": f.Name, "state": f.State, "worker": f.Worker,
			"args": f.Args, "kwargs": f.Kwargs}
		if f.Result != nil {
			texts["result"] = *f.Result
		}
		found := w[0] == "" && strings.Contains(strings.ToLower(f.UUID), w[1])
		for field, text := range texts {
			found = found || (w[0] == "" || w[0] == field) && strings.Contains(strings.ToLower(text), w[1])
		}
		if !found {
			return false
		}
	}
	return true
}
