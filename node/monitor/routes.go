package monitor

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/checkpoint"
)

// route is one call of the API. The table of routes feeds the mux, the access check and the OpenAPI
// document.
type route struct {
	method  string
	pattern string // below a prefix, or below the root
	access  access
	topic   string
	summary string
	query   []parameter
	call

	old        http.HandlerFunc // answers under api.OldPrefix if the shape has changed since; nil if it is the same
	root       bool             // the pattern has no prefix
	everywhere bool             // workers answer, too
	bodyLimit  int64            // 0 is defaultBody
}

// call is the request, the response and the handler of a route.
type call struct {
	handler      http.HandlerFunc
	takes        reflect.Type  // of the body; nil for none or for bytes
	gives        reflect.Type  // of the answer, or of a line of a stream; nil for none
	lines        reflect.Type  // of a line, if JSON has another shape
	media        []string      // of the answer; empty for JSON
	status       int           // of a success; 0 is 200
	writeTimeout time.Duration // for a client to read a piece of the answer; 0 is writeTimeout
	stream       bool          // the answer continues as long as the client reads it, and is sent as it is produced
}

// parameter is a query parameter.
type parameter struct {
	name  string
	kind  string // a JSON type
	about string
}

// is reports whether a key of a query sets the parameter; an object p is set by p[KEY].
func (p *parameter) is(key string) bool {
	if p.kind != "object" {
		return key == p.name
	}
	name, rest, found := strings.Cut(key, "[")
	return found && name == p.name && strings.HasSuffix(rest, "]")
}

// Topics of the document.
const (
	topicSweeps = "sweeps"
	topicTrials = "trials"
	topicCharts = "charts"
	topicNodes  = "nodes"
	topicAccess = "access"
	topicFiles  = "files"
	topicOthers = "other programs"
)

// Media types of answers.
const (
	mediaLines  = "application/x-ndjson"
	mediaJSON   = "application/json"
	mediaCSV    = "text/csv"
	mediaText   = "text/plain; charset=utf-8"
	mediaTar    = "application/x-tar"
	mediaBinary = "application/octet-stream"
)

// listMedia are the media types of lists.
func listMedia() []string { return []string{mediaJSON, mediaLines, mediaCSV} }

// routes returns the API: its calls, who may use them, and their handlers.
func (h *handlers) routes() []route {
	all := []route{
		{method: "GET", pattern: api.PathDocument, access: mayRead, topic: topicNodes,
			summary: "Describe the API", everywhere: true,
			call: call{handler: document, gives: reflect.TypeFor[any]()}},
		{method: "GET", pattern: api.PathNode, access: mayRead, topic: topicNodes,
			summary: "Describe the node that answers", everywhere: true,
			call: callFor(h.nodes.show)},
		{method: "GET", pattern: api.PathMembers, access: mayRead, topic: topicNodes,
			summary: "List the nodes of the cluster", everywhere: true,
			call: callFor(h.nodes.list)},
		{method: "GET", pattern: api.PathNodes, access: mayRead, topic: topicNodes,
			summary: "Show the recent load of all nodes", call: callFor(h.nodes.recent)},
		{method: "GET", pattern: api.PathSamples, access: mayRead, topic: topicNodes,
			summary: "Show the recent load of a node",
			query: []parameter{{"step", "string",
				"15s for the last hour (the default), 1m for a day, or 15m for 14 days"}},
			call: callFor(h.nodes.samples)},
		{method: "POST", pattern: api.PathMember + "/actions/drain", access: mayAct, topic: topicNodes,
			summary: "Keep new trials off a node",
			call:    callWithBody(h.nodes.drainMember)},
		{method: "POST", pattern: api.PathMember + "/actions/undrain", access: mayAct, topic: topicNodes,
			summary: "Allow a node to take trials again",
			call:    callFor(h.nodes.undrainMember)},
		{method: "POST", pattern: api.PathMember + "/actions/forget", access: mayAdminister, topic: topicNodes,
			summary: "Remove a node from the cluster",
			call:    callFor(h.nodes.forgetMember)},
		{method: "POST", pattern: api.PathReach, access: mayAct, topic: topicNodes,
			summary: "Try to connect to a port of the requesting machine",
			call:    callWithBody(h.nodes.connectBack)},

		{method: "GET", pattern: api.PathSession, access: mayRead, topic: topicAccess,
			summary: "Show what the client is allowed to do", everywhere: true,
			call: callFor(whoami)},
		{method: "POST", pattern: api.PathChallenge, access: mayNothing, topic: topicAccess,
			summary: "Refuse machines of older versions",
			call:    callFor(h.access.olderJoin)},
		{method: "POST", pattern: api.PathJoin, access: mayNothing, topic: topicAccess,
			summary: "Join the cluster with a token", call: callWithBody(h.access.join)},
		{method: "POST", pattern: api.PathCertificate, access: forNodes, topic: topicAccess,
			summary: "Renew the certificate of the requesting node",
			call:    callWithBody(h.access.renew)},
		{method: "GET", pattern: api.PathTokens, access: mayAdminister, topic: topicAccess, summary: "List the tokens",
			call: callFor(h.access.tokens)},
		{method: "POST", pattern: api.PathTokens, access: mayAdminister, topic: topicAccess, summary: "Create a token",
			call: callWithBody(h.access.makeToken)},
		{method: "DELETE", pattern: api.PathToken, access: mayAdminister, topic: topicAccess, summary: "Revoke a token",
			call: callFor(h.access.revoke)},
		{method: "POST", pattern: api.PathKeyring, access: mayAdminister, topic: topicAccess,
			summary: "Change the gossip key", call: callFor(h.access.rotate)},
		{method: "GET", pattern: api.PathBackup, access: mayOwn, topic: topicNodes, summary: "Back up the master",
			call: call{handler: h.access.backup, media: []string{mediaBinary}, stream: true}},
		{method: "GET", pattern: api.PathCA, access: mayAdminister, topic: topicAccess,
			summary: "Show the progress of a CA rotation", call: callFor(h.access.ca)},
		{method: "POST", pattern: api.PathCA, access: mayAdminister, topic: topicAccess,
			summary: "Take the next step of a CA rotation", call: callWithBody(h.access.stepCA)},
	}
	all = append(all, route{method: "GET", pattern: api.PathEvents, access: mayRead, topic: topicSweeps,
		summary: "Stream states as they change",
		query: []parameter{{"topics", "string",
			"a comma-separated list of overview, nodes, sweep:ID and trial:ID/INDEX"}},
		call: call{handler: h.events.stream, gives: reflect.TypeFor[api.Events](), media: []string{mediaEvents},
			stream: true, writeTimeout: eventsWriteTimeout}})
	all = append(all, route{method: "GET", pattern: api.PathRate, access: mayRead, topic: topicSweeps,
		summary: "Count the trials that ended in each minute of the last hour",
		call:    call{handler: h.charts.rate, gives: reflect.TypeFor[api.Rate]()}})
	all = append(all, h.sweepRoutes()...)
	all = append(all, h.charts.routes()...)
	all = append(all, h.root.routes()...)
	all = append(all, h.flower.routes()...)
	all = append(all, h.outputRoutes()...)
	return append(all, h.fileRoutes()...)
}

// sweepRoutes returns the calls about sweeps and their trials.
func (h *handlers) sweepRoutes() []route {
	index := parameter{"index", "integer", "the index of a trial; by default, or if it is -1, all trials"}
	dry := parameter{"dry_run", "boolean", "only validate the request and count the trials that it would change"}
	all := []route{
		{method: "GET", pattern: api.PathSweeps, access: mayRead, topic: topicSweeps,
			summary: "List the sweeps, the newest first", old: callFor(h.sweeps.listOld).handler,
			query: []parameter{
				{"state", "string", "only sweeps in this state"}, {"project", "string", "only sweeps of this project"},
				{"limit", "integer", "maximum number of sweeps, at most 200; default 100"},
				{"after", "string", "next of the previous page"},
			},
			call: call{handler: h.sweeps.list, gives: reflect.TypeFor[api.SweepList](),
				lines: reflect.TypeFor[api.Sweep](), media: listMedia()}},
		{method: "POST", pattern: api.PathSweeps, access: mayAct, topic: topicSweeps, summary: "Submit a sweep",
			bodyLimit: largeBody, call: callWithBody(h.actions.submit)},
		{method: "GET", pattern: api.PathSweep, access: mayRead, topic: topicSweeps, summary: "Show a sweep",
			call: callFor(h.sweeps.show)},
		{method: "GET", pattern: api.PathDescribe, access: mayAct, topic: topicSweeps,
			summary: "Show what a sweep runs and where it came from", call: callFor(h.sweeps.describe)},
		{method: "GET", pattern: api.PathBundle, access: mayAct, topic: topicSweeps,
			summary: "Download the files that a sweep was submitted with",
			call:    call{handler: h.files.openSweepBundle, media: []string{mediaBinary}, stream: true}},
		{method: "DELETE", pattern: api.PathSweep, access: mayAct, topic: topicSweeps,
			summary: "Remove a sweep that is not running", call: callFor(h.actions.remove)},
		{method: "POST", pattern: api.PathSweep + "/actions/retry", access: mayAct, topic: topicSweeps,
			summary: "Rerun trials that did not succeed",
			query:   []parameter{dry}, call: callWithBody(h.actions.retry)},
		{method: "POST", pattern: api.PathSweep + "/actions/extend", access: mayAct, topic: topicSweeps,
			summary: "Add values to axes", bodyLimit: largeBody,
			query: []parameter{dry}, call: callWithBody(h.actions.extend)},
		{method: "POST", pattern: api.PathSweep + "/actions/set", access: mayAct, topic: topicSweeps,
			summary: "Change the priority of a sweep, the number of trials it runs at a time, or their time limit",
			query:   []parameter{dry}, call: callWithBody(h.actions.set)},
		{method: "GET", pattern: api.PathFailures, access: mayRead, topic: topicSweeps,
			summary: "Group the failed trials", call: callFor(h.sweeps.failures)},
		{method: "GET", pattern: api.PathWatch, access: mayRead, topic: topicSweeps,
			summary: "Stream the output and the counts of a sweep until none of its trials is running",
			query:   []parameter{{"after", "integer", "position in the log; only output after it is sent"}},
			call: call{handler: h.output.watch, gives: reflect.TypeFor[api.Line](),
				media: []string{mediaLines}, stream: true}},
		{method: "GET", pattern: api.PathTrials, access: mayRead, topic: topicTrials, summary: "List trials",
			old: h.trials.listOld,
			query: slices.Concat(whereQuery, []parameter{
				{"sort", "string",
					"index, state, attempts, started, ended, wall, cpu, memory, objective, a parameter or a metric"},
				{"desc", "boolean", "in descending order"},
				{"limit", "integer", "maximum number of trials, at most 500; default 100"},
				{"offset", "integer", "number of trials to skip: next of the previous page"},
				{"after", "string", "start after this position: cursor of the previous page"},
				{"field", "string", "a column to return; may be repeated; default: all columns"},
			}),
			call: call{handler: h.trials.list, gives: reflect.TypeFor[api.TrialTable](),
				lines: reflect.TypeFor[api.Trial](), media: listMedia()}},
		{method: "GET", pattern: api.PathAttempts, access: mayRead, topic: topicTrials,
			summary: "List the attempts of a trial", call: callFor(h.trials.attempts)},
		{method: "GET", pattern: api.PathCurves, access: mayRead, topic: topicTrials,
			summary: "Show the metrics of a trial over its steps", call: callFor(h.trials.curves)},
		{method: "GET", pattern: api.PathByHand, access: mayAct, topic: topicTrials,
			summary: "Show how to run a trial by hand",
			query: []parameter{{"attempt", "integer",
				"numbered from 1; by default the attempt that determines the trial's state"}},
			call: callFor(h.trials.runScript)},
		{method: "GET", pattern: api.PathExplain, access: mayRead, topic: topicTrials,
			summary: "Explain why a trial is waiting", call: callFor(h.trials.explain)},
		{method: "GET", pattern: api.PathLogs, access: mayRead, topic: topicTrials,
			summary: "Stream the output of trials",
			query: []parameter{
				index, {"attempt", "integer",
					"numbered from 1; by default the attempt that determines the trial's state"},
				{"follow", "boolean", "continue until the trial or the sweep is at rest"},
			},
			call: call{handler: h.output.stream, gives: reflect.TypeFor[api.Line](),
				media: []string{mediaLines}, stream: true}},
		{method: "GET", pattern: api.PathArtifacts, access: mayRead, topic: topicTrials,
			summary: "Download the files that trials left", query: []parameter{index},
			call: call{handler: h.files.artifacts, media: []string{mediaTar}, stream: true}},
	}
	for _, a := range []struct {
		name, summary string
		do            func(*http.Request) (api.Done, error)
		query         []parameter
	}{
		{"pause", "Start no further trials of a sweep", h.actions.pause, nil},
		{"kill", "Pause a sweep and stop its running trials", h.actions.kill, nil},
		{"resume", "Resume a paused sweep", h.actions.resume, nil},
		{"cancel", "End a sweep", h.actions.cancel,
			[]parameter{{"save", "boolean", "let running trials save their state first"}}},
	} {
		all = append(all, route{method: "POST", pattern: api.PathSweep + "/actions/" + a.name, access: mayAct,
			topic: topicSweeps, summary: a.summary,
			query: append([]parameter{dry}, a.query...), call: callFor(a.do)})
	}
	return append(all, route{method: "POST", pattern: api.PathCancel, access: mayAct, topic: topicTrials,
		summary: "Cancel one trial", query: []parameter{dry}, call: callFor(h.actions.cancelTrial)})
}

// outputRoutes returns the calls about the output and the files of one trial.
func (h *handlers) outputRoutes() []route {
	attempt := parameter{"attempt", "integer",
		"numbered from 1; by default the attempt that determines the trial's state"}
	stream := parameter{"stream", "string", "stdout, stderr or setup; default: all of them"}
	text, exact := parameter{"q", "string", "the text to search for, within one line"},
		parameter{"case", "boolean", "match case"}
	return []route{
		{method: "GET", pattern: api.PathSweepLog, access: mayRead, topic: topicSweeps,
			summary: "Show a part of the output of a sweep's trials, in the order in which it was stored",
			query: slices.Concat([]parameter{
				stream, {"from", "integer", "position of the first piece"},
				{"before", "integer",
					"return the output before this position instead; without from and before, the end"},
				{"limit", "integer", fmt.Sprintf("approximate number of bytes, at most %d; default %d", api.MaxWindow,
					api.DefaultWindow)},
			}, whereQuery),
			call: callFor(h.logs.sweepWindow)},
		{method: "GET", pattern: api.PathSweepLogSearch, access: mayRead, topic: topicSweeps,
			summary: "Search the output of a sweep's trials",
			query: slices.Concat([]parameter{
				stream, text, exact, {"from", "integer",
					"position of the first piece to search: next of the previous answer"},
				{"limit", "integer", fmt.Sprintf("approximate number of hits, at most %d; default %d",
					api.MaxHits, api.DefaultHits)},
			}, whereQuery),
			call: callFor(h.logs.searchSweep)},
		{method: "GET", pattern: api.PathLog, access: mayRead, topic: topicTrials,
			summary: "Show a part of the output of a trial",
			query: []parameter{
				attempt, stream, {"offset", "integer", "offset of the first byte; default 0"},
				{"tail", "integer", "start this many bytes before the end instead"},
				{"limit", "integer", fmt.Sprintf("maximum number of bytes, at most %d; default %d", api.MaxWindow,
					api.DefaultWindow)},
			},
			call: callFor(h.logs.window)},
		{method: "GET", pattern: api.PathLogSearch, access: mayRead, topic: topicTrials,
			summary: "Search the output of a trial",
			query: []parameter{
				attempt, stream, text, exact,
				{"offset", "integer", "offset of the first byte to search: next of the previous answer"},
				{"limit", "integer", fmt.Sprintf("approximate number of hits, at most %d; default %d",
					api.MaxHits, api.DefaultHits)},
			},
			call: callFor(h.logs.search)},
		{method: "GET", pattern: api.PathLogText, access: mayRead, topic: topicTrials,
			summary: "Download the output of a trial",
			query:   []parameter{attempt, stream},
			call:    call{handler: h.logs.text, media: []string{mediaText}, stream: true}},
		{method: "GET", pattern: api.PathFiles, access: mayRead, topic: topicTrials,
			summary: "List the files that a trial left",
			query:   []parameter{attempt}, call: callFor(h.files.list)},
		{method: "GET", pattern: api.PathFile, access: mayRead, topic: topicTrials,
			summary: "Download one of the files that a trial left",
			query:   []parameter{attempt, {"name", "string", "name of the file, as in the list"}},
			call:    call{handler: h.files.open, media: []string{mediaBinary}, stream: true}},
	}
}

// fileRoutes returns the calls about bundles and, for nodes, those about artifacts and snapshots.
func (h *handlers) fileRoutes() []route {
	file := api.PathSnapshots + "/files/{hash}"
	return []route{
		{method: "HEAD", pattern: api.PathBundles + "{digest}", access: mayRead, topic: topicFiles,
			summary: "Check whether a bundle is stored",
			call:    call{handler: h.files.hasBundle}},
		{method: "PUT", pattern: api.PathBundles + "{digest}", access: mayAct, topic: topicFiles,
			summary: "Store a bundle", bodyLimit: unlimited,
			call: call{handler: h.files.putBundle, status: http.StatusNoContent}},
		{method: "GET", pattern: api.PathBundles + "{digest}", access: forNodes, topic: topicFiles,
			summary: "Download a bundle",
			call:    call{handler: h.files.openBundle, media: []string{mediaBinary}, stream: true}},
		{method: "PUT", pattern: api.PathRunFiles, access: forNodes, topic: topicFiles,
			summary: "Store the artifacts of a run", bodyLimit: unlimited,
			call: callFor(h.files.putArtifacts)},
		{method: "POST", pattern: api.PathSnapshots, access: forNodes, topic: topicFiles, summary: "Offer a snapshot",
			bodyLimit: checkpoint.MaxManifest,
			call:      callWithBody(h.snapshots.offer)},
		{method: "GET", pattern: api.PathSnapshots + "/{number}", access: forNodes, topic: topicFiles,
			summary: "Load a snapshot", call: callFor(h.snapshots.load)},
		{method: "PUT", pattern: file, access: forNodes, topic: topicFiles, summary: "Store the content of a file",
			bodyLimit: unlimited,
			query: []parameter{{"size", "integer", "size of the file in bytes"},
				{"have", "integer", "number of bytes that are stored already"}},
			call: callFor(h.snapshots.putFile)},
		{method: "GET", pattern: file, access: forNodes, topic: topicFiles, summary: "Download the content of a file",
			call: call{handler: h.snapshots.openFile, media: []string{mediaBinary}, stream: true}},
		{method: "POST", pattern: file, access: forNodes, topic: topicFiles,
			summary: "Check the stored content of a file", call: callFor(h.snapshots.verifyFile)},
	}
}

// callFor returns the call of a function that returns a value.
func callFor[T any](fn func(*http.Request) (T, error)) call {
	return call{gives: reflect.TypeFor[T](), handler: func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		if err != nil {
			sendError(w, err)
			return
		}
		sendJSON(w, r, v)
	}}
}

// callWithBody is like callFor, for a function that also takes the body of the request.
func callWithBody[B, T any](fn func(*http.Request, *B) (T, error)) call {
	c := callFor(func(r *http.Request) (T, error) {
		var body B
		if err := decode(r, &body); err != nil {
			var none T
			return none, err
		}
		return fn(r, &body)
	})
	c.takes = reflect.TypeFor[B]()
	return c
}
