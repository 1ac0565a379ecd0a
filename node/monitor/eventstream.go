package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

const (
	mediaEvents = "text/event-stream"

	maxEventStreams = 256 // of all clients
	maxEventsOfOne  = 32  // streams of one token or session
	maxTopics       = 32  // of one stream
	maxAllTopics    = 256 // different ones, of all streams

	eventsWriteTimeout = 10 * time.Second // for a client to read what is written
	heartBeat          = 15 * time.Second // of a stream on which nothing happens
	eventsRetry        = 2 * time.Second  // after which a client reconnects
)

// eventHandlers stream the states of topics.
type eventHandlers struct {
	lookup  *lookup
	members func() []api.Member // nil on a node that stands alone
	hub     *hub                // nil on a worker
}

// stream sends the states of topics as they change.
func (h *eventHandlers) stream(w http.ResponseWriter, r *http.Request) {
	topics, err := h.topics(r.FormValue("topics"))
	if err != nil {
		sendError(w, err)
		return
	}
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // absent means from the beginning
	c, err := h.hub.join(principalOf(r.Context()).name, topics, last)
	if err != nil {
		w.Header().Set("Retry-After", strconv.Itoa(int(eventsRetry.Seconds())))
		sendError(w, err)
		return
	}
	defer h.hub.leave(c)
	w.Header().Set("Content-Type", mediaEvents)
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	fmt.Fprintf(w, "retry: %d\n\n", eventsRetry.Milliseconds())
	beat := time.NewTicker(heartBeat)
	defer beat.Stop()
	leaving := serverStopping(r.Context())
	for {
		if err := out.Flush(); err != nil {
			return
		}
		err := error(nil)
		select {
		case <-c.wake:
			err = writeEvents(w, h.hub.drain(c))
		case <-beat.C:
			_, err = io.WriteString(w, ": hb\n\n")
		case <-leaving:
			bye, _ := json.Marshal(api.Bye{Reason: "the node stops"})
			_ = writeEvents(w, []*topicState{{name: "bye", data: bye}})
			_ = out.Flush() // the client has gone if this fails
			return
		case <-r.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func writeEvents(w io.Writer, all []*topicState) error {
	for _, s := range all {
		if s.id > 0 {
			if _, err := fmt.Fprintf(w, "id: %d\n", s.id); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", s.name, s.data); err != nil {
			return err
		}
	}
	return nil
}

// topics parses the topics of a request.
func (h *eventHandlers) topics(text string) ([]topic, error) {
	var all []topic
	for name := range strings.SplitSeq(text, ",") {
		kind, of, _ := strings.Cut(name, ":")
		t := topic{kind: kind}
		id, index, trial := strings.Cut(of, "/")
		switch {
		case kind == "overview" && of == "", kind == "nodes" && of == "" && h.members != nil:
		case kind == "nodes" && of == "":
			return nil, errAlone
		case kind == "sweep" && !trial, kind == "trial" && trial:
			s, err := h.lookup.byID(grid.SweepID(id))
			if err != nil {
				return nil, err
			}
			t.sweep = s.ID
			if trial {
				if t.index, err = trialIndex(s, index); err != nil {
					return nil, err
				}
				if t.index < 0 {
					return nil, notTopic(name)
				}
			}
		default:
			return nil, notTopic(name)
		}
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	if len(all) > maxTopics {
		return nil, badRequest(fmt.Sprintf("%d topics are requested, but at most %d are allowed", len(all), maxTopics),
			"")
	}
	return all, nil
}

func notTopic(name string) error {
	return badRequest(fmt.Sprintf("%.60q is not a topic", name),
		"topics are overview, nodes, sweep:ID and trial:ID/INDEX, with commas between them")
}

// tooManyStreams is the response to a stream that exceeds a limit.
func tooManyStreams(what string) error {
	return &api.Error{Status: http.StatusServiceUnavailable, Msg: what, Hint: "close other pages, or try again later"}
}

// serverStopping returns a channel that is closed when the server of a request stops.
func serverStopping(ctx context.Context) <-chan struct{} {
	leaving, _ := ctx.Value(serverStoppingKey{}).(<-chan struct{})
	return leaving
}

type serverStoppingKey struct{}
