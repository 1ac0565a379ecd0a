package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mlfnode/grid"
)

// PathEvents is a stream of server-sent events. An event is a state, not a change: the newest event
// replaces the earlier ones of the same thing, so a client that misses some has lost nothing. The
// id of an event is that of the last event of the store that it includes, which stays the same when
// the master restarts: a client that sends it as Last-Event-ID gets what may have changed since.
//
// Topics are overview (the cluster, and a state of each active sweep), nodes, sweep:ID and
// trial:ID/INDEX. The name of an event is that of a field of Events, and its data is the value of
// that field.
const PathEvents = "/events"

// Events are the events of the stream: each event has one field.
type Events struct {
	Overview *Overview     `json:"overview,omitempty"`
	Sweep    *SweepState   `json:"sweep,omitempty"`
	Node     *Member       `json:"node,omitempty"`
	Members  []grid.NodeID `json:"members,omitempty"` // names of all nodes; states of other nodes are obsolete
	// without wall_seconds while it runs; its state is removed once its sweep has been removed
	Trial *Trial `json:"trial,omitempty"`
	Bye   *Bye   `json:"bye,omitempty"` // sent before the stream ends
}

// Overview summarizes the activity of the cluster.
type Overview struct {
	Active    int    `json:"active"`    // number of running sweeps
	Sweeps    int    `json:"sweeps"`    // number of sweeps kept
	Pending   int64  `json:"pending"`   // trials of active sweeps that are waiting
	Running   int64  `json:"running"`   // trials of all sweeps kept
	Succeeded int64  `json:"succeeded"` // trials of all sweeps kept
	Failed    int64  `json:"failed"`    // trials of all sweeps kept
	Problem   string `json:"problem,omitempty"`
}

// PathRate is the path of a Rate, below a prefix.
const PathRate = "/rate"

// Rate is the number of trials that ended in each step of the last hour, the newest last, of the
// sweeps that ran something in that hour.
type Rate struct {
	Step      float64   `json:"step_seconds"`
	Until     time.Time `json:"until"` // end of the newest step
	Succeeded []int64   `json:"succeeded"`
	Failed    []int64   `json:"failed"`
	Cancelled []int64   `json:"cancelled"`
	Sentence  string    `json:"sentence"`
}

// SweepState is the progress of a sweep. A removed sweep has the state removed and no other field.
type SweepState struct {
	SweepCounts

	Rate float64  `json:"rate"`        // trials that ended per second, averaged over several seconds
	ETA  *float64 `json:"eta_seconds"` // time until the last trial ends, in whole seconds; null while unknown
}

// Bye states why a stream of events ends.
type Bye struct {
	Reason string `json:"reason"`
}

const (
	eventsQuiet   = 45 * time.Second // an event stream that is silent for this long is dead: there is a beat every 15 s
	longestEvent  = 16 << 20         // bytes in a line
	eventsMissing = "the stream of events was cut"
)

// Events streams the states of topics: first their current states, then each change, until the
// stream is cut, which returns ErrLost, or ctx ends.
func (c *Client) Events(ctx context.Context, topics []string) iter.Seq2[Events, error] {
	return func(yield func(Events, error) bool) {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		dead := time.AfterFunc(eventsQuiet, func() { stop(fmt.Errorf("%w: %s", ErrLost, eventsMissing)) })
		defer dead.Stop()
		resp, err := c.send(ctx, http.MethodGet, Prefix+PathEvents, url.Values{"topics": {strings.Join(topics, ",")}},
			nil, "")
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
