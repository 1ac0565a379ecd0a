package monitor

import (
	"log/slog"
)

// handlers answer the calls of the API; each type answers those about one subject, as listed in the
// table of routes.
type handlers struct {
	sweeps    *sweepHandlers
	actions   *sweepActions
	trials    *trialHandlers
	charts    *chartHandlers
	output    *outputHandlers
	logs      *logHandlers
	files     *fileHandlers
	snapshots *snapshotHandlers
	nodes     *nodeHandlers
	access    *accessHandlers
	events    *eventHandlers
	flower    *flowerHandlers
	root      *rootHandlers
}

// newHandlers makes the handlers of a node, with the parts that they share.
func newHandlers(cfg *Config, refusals *refusalLog, requests *requestMetrics, log *slog.Logger) *handlers {
	lookup := &lookup{cfg.Master, cfg.History}
	charts := &chartViews{cfg.History, newChartCache(keptAnswers)}
	eta := &etaEstimator{history: cfg.History, charts: charts, cache: newChartCache(keptETAs), log: log}
	views := &sweepViews{cfg.Master, cfg.History, eta}
	rest := &quiescence{cfg.Master, cfg.History}
	parts := &nodeHealth{cfg.Master, cfg.Store, cfg.Working}
	healthy := &health{probe: parts.check, timeout: healthTimeout, log: log.With("question", "healthy")}
	var events *hub
	if cfg.Master != nil {
		events = newHub(&observer{master: cfg.Master, history: cfg.History, store: cfg.Store, members: cfg.Members,
			eta: eta, log: log})
	}
	return &handlers{
		sweeps:  &sweepHandlers{lookup, cfg.Master, cfg.History, cfg.Store, views},
		actions: &sweepActions{lookup, cfg.Master, views},
		trials: &trialHandlers{
			lookup: lookup, master: cfg.Master, history: cfg.History, store: cfg.Store, charts: charts,
			pages: newTrialPages(), log: log,
		},
		charts: &chartHandlers{lookup, cfg.Master, cfg.History, charts, eta},
		output: &outputHandlers{
			lookup: lookup, master: cfg.Master, history: cfg.History, store: cfg.Store, views: views,
			rest: rest, log: log,
		},
		logs: &logHandlers{
			lookup: lookup, store: cfg.Store, charts: charts, rest: rest, log: log,
			indexes: &logIndexes{readers: make(semaphore, logReaders), timeout: searchTimeout},
		},
		files:     &fileHandlers{lookup, cfg.Master, cfg.History, cfg.Store, log},
		snapshots: &snapshotHandlers{cfg.Master},
		nodes: &nodeHandlers{
			self: cfg.Node, master: cfg.Master, store: cfg.Store, members: cfg.Members, working: cfg.Working,
			cluster: &cfg.Cluster,
		},
		access: &accessHandlers{&cfg.Cluster, refusals, log},
		events: &eventHandlers{lookup, cfg.Members, events},
		flower: &flowerHandlers{
			lookup: lookup, master: cfg.Master, history: cfg.History, healthy: healthy, lists: make(semaphore, 1),
			workers: &flowerWorkers{
				lookup: lookup, master: cfg.Master, history: cfg.History, self: cfg.Node,
				members: cfg.Members, log: log,
			},
		},
		root: &rootHandlers{
			healthy: healthy,
			ready:   &health{probe: parts.checkReady, timeout: healthTimeout, log: log.With("question", "ready")},
			metrics: &metricsHandlers{
				self: cfg.Node, master: cfg.Master, history: cfg.History, store: cfg.Store, members: cfg.Members,
				eta: eta, hub: events,
				requests: requests, log: log,
			},
		},
	}
}
