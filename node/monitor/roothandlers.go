package monitor

import "mlfnode/node/api"

// rootHandlers answer the calls of other programs, such as Prometheus, which have no prefix.
type rootHandlers struct {
	healthy, ready *health
	metrics        *metricsHandlers
}

func (h *rootHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: api.PathHealthy, root: true, access: mayNothing, topic: topicOthers, everywhere: true,
			summary: "Report whether the node is healthy: if it stays unhealthy, restart it",
			call:    call{handler: h.healthy.serve, media: []string{mediaText}}},
		{method: "GET", pattern: api.PathMetrics, root: true, access: mayRead, topic: topicOthers,
			summary: "Export metrics for Prometheus",
			call:    call{handler: h.metrics.scrape, media: []string{mediaText}}},
		{method: "GET", pattern: api.PathReady, root: true, access: mayNothing, topic: topicOthers, everywhere: true,
			summary: "Report whether the node is ready to store data or take trials",
			call:    call{handler: h.ready.serve, media: []string{mediaText}}},
	}
}
