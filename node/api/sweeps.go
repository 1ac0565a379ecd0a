package api

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// Sweeps reads sweeps, starts them, and acts on them.
type Sweeps struct{ client *Client }

// Sweeps returns the calls about sweeps.
func (c *Client) Sweeps() Sweeps { return Sweeps{c} }

// Submit starts a sweep. When it returns, the sweep is on disk.
func (s Sweeps) Submit(ctx context.Context, sub Submit) (Sweep, error) {
	return post[Sweep](ctx, s.client, PathSweeps, sub.submission())
}

// List lists all sweeps, the oldest first.
func (s Sweeps) List(ctx context.Context) ([]Sweep, error) {
	return get[[]Sweep](ctx, s.client, PathSweeps, nil)
}

// Newest returns the newest sweeps, at most limit of them.
func (s Sweeps) Newest(ctx context.Context, limit int) (SweepList, error) {
	return getJSON[SweepList](ctx, s.client, PathSweeps, url.Values{"limit": {strconv.Itoa(limit)}})
}

// Get returns one sweep; id may be Last.
func (s Sweeps) Get(ctx context.Context, id grid.SweepID) (Sweep, error) {
	return get[Sweep](ctx, s.client, sweepPath(PathSweep, id), nil)
}

// Describe returns what a sweep runs and where it came from. It needs an operator's token, because
// the words of a command may be secrets.
func (s Sweeps) Describe(ctx context.Context, id grid.SweepID) (Description, error) {
	return get[Description](ctx, s.client, sweepPath(PathDescribe, id), nil)
}

// Watch streams what happens in a sweep until it is at rest: finished, cancelled, or paused with
// nothing running. Output starts after the log position after; 0 starts at the beginning of the
// sweep. Start at Sweep.LogNext to see only new output, and at Output.Seq to continue (through a
// SeenOutput, since a position holds many pieces). All output is sent before the last update.
func (s Sweeps) Watch(ctx context.Context, id grid.SweepID, after uint64) iter.Seq2[Update, error] {
	v := url.Values{}
	if after > 0 {
		v.Set("after", strconv.FormatUint(after, 10))
	}
	return stream[Update](ctx, s.client, sweepPath(PathWatch, id), v)
}

// Pause keeps further trials of a sweep from starting; running ones continue to their end.
func (s Sweeps) Pause(ctx context.Context, id grid.SweepID) (Done, error) {
	return act(ctx, s.client, id, "pause", nil)
}

// Kill pauses the sweep and kills its running trials, which count as not run.
func (s Sweeps) Kill(ctx context.Context, id grid.SweepID) (Done, error) {
	return act(ctx, s.client, id, "kill", nil)
}

// Resume continues a paused sweep.
func (s Sweeps) Resume(ctx context.Context, id grid.SweepID) (Done, error) {
	return act(ctx, s.client, id, "resume", nil)
}

// Cancel ends a sweep: running trials are stopped, and the others never run. With save, running
// trials may save their state first.
func (s Sweeps) Cancel(ctx context.Context, id grid.SweepID, save bool) (Done, error) {
	if save {
		return act(ctx, s.client, id, "cancel?save=true", nil)
	}
	return act(ctx, s.client, id, "cancel", nil)
}

// Retry runs trials again that did not succeed.
func (s Sweeps) Retry(ctx context.Context, id grid.SweepID, r Retry) (Done, error) {
	return act(ctx, s.client, id, "retry", r)
}

// Extend adds values to axes; only the new points run.
func (s Sweeps) Extend(ctx context.Context, id grid.SweepID, e Extend) (Done, error) {
	return act(ctx, s.client, id, "extend", e)
}

// Set changes the priority of a sweep and how many of its trials may run at a time.
func (s Sweeps) Set(ctx context.Context, id grid.SweepID, set Set) (Done, error) {
	return act(ctx, s.client, id, "set", set)
}

// Preview returns what an action on a sweep would change, and changes nothing. The body is the
// action's.
func (s Sweeps) Preview(ctx context.Context, id grid.SweepID, action string, body any) (Done, error) {
	return act(ctx, s.client, id, action+"?dry_run=true", body)
}

func act(ctx context.Context, c *Client, id grid.SweepID, action string, body any) (Done, error) {
	path := strings.Replace(sweepPath(PathAction, id), "{action}", action, 1)
	return post[Done](ctx, c, path, body)
}

// Remove deletes a sweep that does not run from the store, with its events, output, artifacts and
// results.
func (s Sweeps) Remove(ctx context.Context, id grid.SweepID) error {
	return discard(s.client.do(ctx, http.MethodDelete, sweepPath(PathSweep, id), nil, nil))
}
