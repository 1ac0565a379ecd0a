package monitor

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// flowerWorkers answer Flower's calls about workers, which are nodes.
type flowerWorkers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	self    api.Node
	members func() []api.Member // nil on a node that stands alone
	log     *slog.Logger
}

// flowerNodes lists the nodes that run trials.
func (fw *flowerWorkers) nodes() []api.Member {
	if fw.members == nil {
		n := fw.self
		return []api.Member{{Node: n.Node, State: "alive", CPUs: n.CPUs, Memory: n.Memory}}
	}
	var all []api.Member
	for _, n := range fw.members() {
		if n.State != "left" && slices.Contains(n.Roles, "worker") {
			all = append(all, n)
		}
	}
	return all
}

func (fw *flowerWorkers) list(r *http.Request) (any, error) {
	name := r.FormValue("workername")
	status, _ := strconv.ParseBool(r.FormValue("status")) // absent means no
	there, workers := map[string]bool{}, map[string]api.FlowerWorker{}
	types := taskNames(fw.lookup.list("", ""))
	running, err := fw.running(r.Context())
	if err != nil {
		return nil, err
	}
	for _, n := range fw.nodes() {
		there[string(n.Node)] = n.State != "dead"
		if name == "" || name == string(n.Node) {
			workers[string(n.Node)] = fw.worker(&n, types, running[n.Node], name != "")
		}
	}
	switch {
	case status:
		return there, nil
	case name != "" && len(workers) == 0:
		return nil, flowerRefusal(http.StatusNotFound, "Unknown worker '%.80s'", name)
	}
	return workers, nil
}

func (fw *flowerWorkers) worker(n *api.Member, types []string, running []api.FlowerActive, one bool) api.FlowerWorker {
	w := api.FlowerWorker{
		Registered: types, Timestamp: unixSeconds(time.Now().UnixMicro()),
		Queues: []api.FlowerQueue{{Name: "leases", RoutingKey: "leases"}}, Conf: map[string]any{},
		Stats: api.FlowerStats{
			Total: map[string]int64{}, Clock: strconv.FormatUint(fw.history.Applied(), 10),
			Broker: map[string]any{"transport": "nats"}, Rusage: map[string]float64{},
			Pool: api.FlowerPool{Implementation: "mlfnode", Concurrency: int(n.CPUs), Processes: []int{}},
		},
	}
	if n.Local || fw.members == nil {
		w.Stats.PID = os.Getpid()
	}
	for _, t := range running {
		w.Stats.Total[t.Name]++
	}
	if one {
		w.Scheduled, w.Active, w.Reserved, w.Revoked = &[]api.FlowerActive{}, &running,
			&[]api.FlowerActive{}, &[]string{}
		if running == nil {
			w.Active = &[]api.FlowerActive{}
		}
	}
	return w
}

// running lists the running trials by node, a few thousand at most.
func (fw *flowerWorkers) running(ctx context.Context) (map[grid.NodeID][]api.FlowerActive, error) {
	all := map[grid.NodeID][]api.FlowerActive{}
	for _, s := range fw.lookup.list("", "") {
		c, err := fw.history.Counts(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		if c.Running == 0 {
			continue
		}
		for t, err := range fw.history.Trials(ctx, s.ID,
			history.Query{States: []grid.State{grid.Running}, Limit: flowerTasks}) {
			if err != nil {
				return nil, err
			}
			f := newFlowerTask(s, &t, fw.history.Applied())
			all[t.Node] = append(all[t.Node], api.FlowerActive{
				ID: f.UUID, Name: f.Name, Args: f.Args, Kwargs: f.Kwargs, Type: f.Name, Hostname: string(t.Node),
				TimeStart: f.Started,
			})
		}
	}
	return all, nil
}

// metrics answers with Flower's six metrics.
func (fw *flowerWorkers) metrics(w http.ResponseWriter, r *http.Request) {
	sendMetrics(w, r, fw.log, prometheus.NewRegistry(), &flowerScrape{fw, r.Context()})
}

type flowerScrape struct {
	*flowerWorkers
	ctx context.Context
}

// Describe implements prometheus.Collector. The set of metrics depends on the moment.
func (s *flowerScrape) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *flowerScrape) Collect(ch chan<- prometheus.Metric) {
	defer recoverScrape(s.log)
	ctx, stop := context.WithTimeout(s.ctx, scrapeTimeout)
	defer stop()
	gauge := func(name, help string, value float64, labels ...string) {
		names := []string{"worker", "task"}[:len(labels)]
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("flower_"+name, help, names, nil),
			prometheus.GaugeValue, value, labels...)
	}
	for _, n := range s.nodes() {
		gauge("worker_online", "Worker online status", map[bool]float64{true: 1}[n.State != "dead"], string(n.Node))
	}
	running, err := s.running(ctx)
	if err != nil {
		s.log.Debug("some metrics are left out", "part", "running trials", "err", err)
	}
	for _, n := range s.nodes() {
		gauge("worker_number_of_currently_executing_tasks", "Number of tasks currently executing at a worker",
			float64(len(running[n.Node])), string(n.Node))
	}
	a, err := s.master.Activity(ctx)
	if err != nil {
		s.log.Debug("some metrics are left out", "part", "activity", "err", err)
		return
	}
	events := prometheus.NewDesc("flower_events_total", "Number of events", []string{"worker", "type", "task"}, nil)
	for of, c := range a.Tasks {
		node := cmp.Or(string(of.Node), "mlfnode")
		for _, kind := range slices.Sorted(maps.Keys(c.Events)) {
			ch <- prometheus.MustNewConstMetric(events, prometheus.CounterValue, float64(c.Events[kind]),
				node, kind, of.Task)
		}
		gauge("task_prefetch_time_seconds",
			"The time the task spent waiting at the worker to be executed: nodes take no trial before it can start.", 0,
			node, of.Task)
		gauge("worker_prefetched_tasks",
			"Number of tasks of given type prefetched at a worker: nodes take no trial before it can start.", 0, node,
			of.Task)
		buckets, count := c.Runtime.Cumulative()
		ch <- prometheus.MustNewConstHistogram(prometheus.NewDesc("flower_task_runtime_seconds", "Task runtime",
			[]string{"worker", "task"}, nil),
			count, c.Runtime.Sum, buckets, node, of.Task)
	}
}
