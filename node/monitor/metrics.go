package monitor

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

const (
	scrapeTimeout = 10 * time.Second // Prometheus's own default
	// scrapedSweeps bounds the sweeps that have series of their own, the newest active ones.
	scrapedSweeps = 50
)

// requestMetrics counts what records, history and the master do not record. No label contains user
// text, a trial or a path, because those are unbounded.
type requestMetrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec

	once   sync.Once
	always *prometheus.Registry // of what persists between two scrapes; made by the first one
}

func newRequestMetrics() *requestMetrics {
	return &requestMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mlfnode_http_requests_total", Help: "Answers of the API by route and status.",
		}, []string{"route", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mlfnode_http_request_duration_seconds", Help: "How long answers of the API took, streams left out.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10},
		}, []string{"route"}),
	}
}

// observe counts a response.
func (c *requestMetrics) observe(rt *route, status int, took time.Duration) {
	name := rt.method + " " + rt.prefix() + rt.pattern
	c.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
	if !rt.stream {
		c.durations.WithLabelValues(name).Observe(took.Seconds())
	}
}

func (c *requestMetrics) registry() *prometheus.Registry {
	c.once.Do(func() {
		c.always = prometheus.NewRegistry()
		c.always.MustRegister(c.requests, c.durations, collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	})
	return c.always
}

// metricsHandlers answer Prometheus.
type metricsHandlers struct {
	self     api.Node
	master   *master.Master
	history  *history.DB
	store    *jetstream.Store
	members  func() []api.Member // nil on a node that stands alone
	eta      *etaEstimator
	hub      *hub
	requests *requestMetrics
	log      *slog.Logger
}

// scrape answers Prometheus.
func (h *metricsHandlers) scrape(w http.ResponseWriter, r *http.Request) {
	ctx, stop := context.WithTimeout(r.Context(), scrapeTimeout)
	defer stop()
	sendMetrics(w, r, h.log, h.requests.registry(), &scrape{metricsHandlers: h, ctx: ctx})
}

// sendMetrics answers with the metrics of all gatherers. Metrics that can't be read are left out
// and logged.
func sendMetrics(
	w http.ResponseWriter, r *http.Request, log *slog.Logger, always prometheus.Gatherer, now prometheus.Collector,
) {
	fresh := prometheus.NewRegistry()
	fresh.MustRegister(now)
	promhttp.HandlerFor(prometheus.Gatherers{always, fresh}, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		DisableCompression: true,
	}).ServeHTTP(w, r)
}

// scrape collects the metrics at one moment.
type scrape struct {
	*metricsHandlers
	ctx context.Context
	ch  chan<- prometheus.Metric
}

// Describe implements prometheus.Collector. The set of metrics depends on the moment.
func (s *scrape) Describe(chan<- *prometheus.Desc) {}

// label is the name and the value of a label.
type label struct{ name, value string }

func (s *scrape) desc(name, help string, labels []label) (*prometheus.Desc, []string) {
	names, values := make([]string, len(labels)), make([]string, len(labels))
	for i, l := range labels {
		names[i], values[i] = l.name, l.value
	}
	return prometheus.NewDesc("mlfnode_"+name, help, names, nil), values
}

func (s *scrape) gauge(name, help string, value float64, labels ...label) {
	desc, values := s.desc(name, help, labels)
	s.ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, values...)
}

func (s *scrape) counter(name, help string, value int64, labels ...label) {
	desc, values := s.desc(name, help, labels)
	s.ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), values...)
}

func (s *scrape) histogram(name, help string, d *master.Durations, labels ...label) {
	desc, values := s.desc(name, help, labels)
	buckets, count := d.Cumulative()
	s.ch <- prometheus.MustNewConstHistogram(desc, count, d.Sum, buckets, values...)
}

// recoverScrape logs the panic of a scrape; it must be deferred. Collect runs in a goroutine of
// Prometheus's registry, where a panic would end the node.
func recoverScrape(log *slog.Logger) {
	if r := recover(); r != nil {
		log.Error("a scrape panicked", "panic", r, "stack", string(debug.Stack()))
	}
}

// failed logs that some metrics are left out.
func (s *scrape) failed(what string, err error) {
	s.log.Debug("some metrics are left out", "part", what, "err", err)
}

// Collect implements prometheus.Collector.
func (s *scrape) Collect(ch chan<- prometheus.Metric) {
	defer recoverScrape(s.log)
	s.ch = ch
	s.gauge("build_info", "The version of the node, always 1.", 1, label{"version", s.self.Version},
		label{"go", runtime.Version()})
	s.sweeps()
	if a, err := s.master.Activity(s.ctx); err != nil {
		s.failed("activity", err)
	} else {
		s.activity(a)
	}
	applied := s.history.Applied()
	s.counter("events_applied_total", "Batches of events that history holds.", int64(applied))
	if _, last, err := s.store.Events.Bounds(s.ctx); err != nil {
		s.failed("events", err)
	} else {
		s.gauge("events_lag", "Batches of events that history does not hold yet.", float64(max(last, applied)-applied))
	}
	if all, err := storeUsage(s.ctx, s.store, s.master); err != nil {
		s.failed("store", err)
	} else {
		for _, u := range all {
			s.gauge("store_bytes", "What a part of the store holds.", float64(u.Bytes), label{"store", u.Name})
			s.gauge("store_limit_bytes", "What a part of the store can hold.", float64(u.Limit), label{"store", u.Name})
		}
	}
	s.gauge("event_streams", "Streams of events that browsers have open.", float64(s.hub.clientCount()))
	if s.members != nil {
		for _, member := range s.members() {
			s.node(&member)
		}
	}
}

func (s *scrape) sweeps() {
	records := s.master.Sweeps()
	slices.SortFunc(records, func(a, b jetstream.Record) int { return b.Sweep.Compare(a.Sweep) })
	states := map[grid.SweepState]int{grid.SweepRunning: 0, grid.SweepPaused: 0, grid.SweepCancelled: 0,
		grid.SweepFinished: 0}
	active := 0
	for _, rec := range records {
		if rec.Sweep.Removing {
			continue
		}
		states[rec.Sweep.State]++
		if rec.Sweep.Active() {
			if active++; active <= scrapedSweeps {
				s.sweep(rec.Sweep)
			}
		}
	}
	for state, n := range states {
		s.gauge("sweeps", "Sweeps that are kept, by state.", float64(n), label{"state", string(state)})
	}
}

func (s *scrape) sweep(sweep *grid.Sweep) {
	c, err := s.history.Counts(s.ctx, sweep.ID)
	if err != nil {
		s.failed("counts", err)
		return
	}
	id, v := label{"sweep", string(sweep.ID)}, sweepWithCounts(sweep, &c)
	for state, n := range map[string]int64{
		string(grid.Pending): v.Pending, string(grid.Running): v.Running, string(grid.Succeeded): v.Succeeded,
		string(grid.Failed):    v.Failed,
		string(grid.Cancelled): v.OnlyCancelled(), string(grid.ClassStopped): v.Stopped,
	} {
		s.gauge("sweep_trials", "Trials of an active sweep, by state; stopped are those that were stopped early.",
			float64(n), id, label{"state", state})
	}
	if left := s.eta.remaining(s.ctx, sweep, &v); left != nil {
		s.gauge("sweep_eta_seconds", "Until the last trial of an active sweep ends, as far as can be told.", *left, id)
	}
	if best, ok := s.best(sweep); ok {
		s.gauge("sweep_best_objective",
			"The best value of the objective among the trials that have succeeded.", best, id)
	}
}

// best returns the best value of the objective.
func (s *scrape) best(sweep *grid.Sweep) (value float64, ok bool) {
	objective := sweep.Task.Objective
	if objective == nil {
		return 0, false
	}
	q := history.Query{States: []grid.State{grid.Succeeded}, Sort: history.SortObjective,
		Desc: objective.Goal == "maximize", Limit: 1}
	for t, err := range s.history.Trials(s.ctx, sweep.ID, q) {
		if err != nil {
			s.failed("best", err)
			return 0, false
		}
		return value, json.Unmarshal(t.Result.Metrics[objective.Metric], &value) == nil
	}
	return 0, false
}

func (s *scrape) activity(a *master.Activity) {
	stopped := a.Attempts[grid.ClassStopped] // each of them ends its trial
	for state, n := range map[string]int64{
		string(grid.Succeeded): a.Finished[grid.Succeeded], string(grid.Failed): a.Finished[grid.Failed],
		string(grid.Cancelled): a.Finished[grid.Cancelled] - stopped, string(grid.ClassStopped): stopped,
	} {
		s.counter("trials_finished_total",
			"Trials that have come to their end since the master started, by state; stopped are those that were stopped early.",
			n,
			label{"state", state})
	}
	for class, n := range a.Attempts {
		s.counter("attempts_finished_total",
			"Attempts that have ended since the master started, by how they failed; none for the others.", n,
			label{"class", cmp.Or(string(class), "none")})
	}
	for class, n := range a.Retries {
		s.counter("retries_total", "Attempts after which the trial ran again or will, by how they failed.", n,
			label{"class", cmp.Or(string(class), "none")})
	}
	for state, d := range a.Durations {
		s.histogram("attempt_duration_seconds", "How long attempts ran, by how they ended.", d,
			label{"state", string(state)})
	}
	s.histogram("trial_wait_seconds",
		"From the lease of a trial to its start, of trials that outlive a moment.", a.Waits)
	s.gauge("queue_leases", "Leases in the queue and at nodes.", float64(a.Leases))
	s.gauge("queue_oldest_lease_age_seconds",
		"How long the oldest lease that no node has taken has been waiting.", a.Oldest.Seconds())
}

func (s *scrape) node(n *api.Member) {
	if n.State == "left" {
		return // on purpose
	}
	node := label{"node", string(n.Node)}
	bit := map[bool]float64{true: 1}
	s.gauge("node_up", "Whether the node is there.", bit[n.State == "alive" || n.State == "suspect"], node)
	s.gauge("node_draining", "Whether the node takes no more trials, by an order or because it is in quarantine.",
		bit[n.Drained || n.Quarantined], node)
	s.gauge("node_cpus", "Processors that trials may use.", n.CPUs, node)
	s.gauge("node_load1", "Load of the node over one minute.", n.Load, node)
	s.gauge("node_memory_bytes", "Memory that trials may use.", float64(n.Memory), node)
	s.gauge("node_attempts_running", "Attempts that run on the node.", float64(n.Running), node)
	for i := range n.Devices {
		s.gpu(node, &n.Devices[i])
	}
}

func (s *scrape) gpu(node label, g *api.GPU) {
	uuid := label{"uuid", g.UUID}
	s.gauge("gpu_info", "A GPU or MIG instance, always 1.", 1, node, uuid, label{"index", strconv.Itoa(g.Index)},
		label{"model", g.Name})
	for _, v := range []struct {
		name, help string
		value      float64
	}{
		{"gpu_utilization_ratio", "How busy the GPU is, from 0 to 1.", float64(g.Utilization) / 100},
		{"gpu_memory_bytes", "Memory of the GPU.", float64(g.Memory)},
		{"gpu_memory_used_bytes", "Memory of the GPU that is used.", float64(g.Used)},
		{"gpu_temperature_celsius", "Temperature of the GPU.", float64(g.Temperature)},
		{"gpu_power_watts", "Power that the GPU draws.", float64(g.Power)},
		{"gpu_processes", "Processes on the GPU.", float64(g.Processes)},
		{"gpu_trials", "Trials on the GPU.", float64(len(g.Trials))},
	} {
		if v.value >= 0 { // otherwise the driver does not report it
			s.gauge(v.name, v.help, v.value, node, uuid)
		}
	}
}
