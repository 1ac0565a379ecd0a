package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
)

func logsCommand(a *app) *cobra.Command {
	var follow, raw, onlyOut, onlyErr, metrics, onlyFailed bool
	var attempt int
	c := &cobra.Command{
		Use: "logs SWEEP[/TRIAL]", Short: "Show what trials printed, stored and live", Args: oneArgument,
		Example: `  mlfnode logs chainer-1/17
  mlfnode logs last -f
  mlfnode logs last --failed
  mlfnode logs chainer-1/17 --stdout > out.txt
  mlfnode logs --metrics chainer-1/17`,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			if attempt != 0 && (id.Index < 0 || attempt < 0) {
				return usage("--attempt must be at least 1, and needs one trial",
					"mlfnode logs chainer-1/17 --attempt 2")
			}
			if onlyFailed {
				if id.Index >= 0 {
					return usage("--failed shows what the failed trials of a sweep printed",
						fmt.Sprintf("mlfnode logs --failed %s, or: mlfnode logs %s", id.Sweep, id))
				}
				for _, other := range []string{"follow", "raw", "metrics"} {
					if c.Flags().Changed(other) {
						return usage("--failed shows trials that have ended, and can't be combined with --"+other,
							fmt.Sprintf("mlfnode logs --failed %s", id.Sweep))
					}
				}
				return a.withSession(c.Context(), func(s *node.Session) error {
					return printFailedLogs(c.Context(), a.console, s.Client(), id.Sweep,
						&logView{out: onlyOut, err: onlyErr})
				})
			}
			if metrics {
				if id.Index < 0 {
					return usage("--metrics shows the curves of one trial",
						fmt.Sprintf("mlfnode logs --metrics %s/0; mlfnode trials %s draws a line for each trial",
							id.Sweep, id.Sweep))
				}
				for _, other := range []string{"follow", "raw", "stdout", "stderr"} {
					if c.Flags().Changed(other) {
						return usage("--metrics shows metrics, not output, and can't be combined with --"+other,
							fmt.Sprintf("mlfnode logs --metrics %s", id))
					}
				}
				return a.withSession(c.Context(), func(s *node.Session) error {
					return printCurves(c.Context(), a.console, s.Client(), id, attempt)
				})
			}
			return a.withSession(c.Context(), func(s *node.Session) error {
				view := &logView{raw: raw, out: onlyOut, err: onlyErr}
				q := api.LogQuery{Index: id.Index, Attempt: attempt, Follow: follow}
				for {
					err := printLogs(c.Context(), a.console, s.Client(), id, view, q)
					if !follow || !s.InCluster() || !errors.Is(err, api.ErrLost) {
						return err
					}
					// The output starts again; view skips what was shown already.
					err = s.Await(c.Context(), func() { a.say("%s", awaitingMaster) })
					if err != nil {
						return err
					}
				}
			})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "keep following while it runs")
	c.Flags().BoolVar(&raw, "raw", false, "the bytes as the program wrote them, even on a terminal")
	c.Flags().BoolVar(&onlyOut, "stdout", false, "only standard output")
	c.Flags().BoolVar(&onlyErr, "stderr", false, "only standard error")
	c.Flags().BoolVar(&onlyFailed, "failed", false, "only the output of failed trials, one trial after another")
	c.Flags().BoolVar(&metrics, "metrics", false, "a trial's metrics step by step, instead of its output")
	c.Flags().IntVar(&attempt, "attempt", 0, "the output of this attempt (default: the one that counts)")
	a.jsonFlag(c)
	return c
}

// logView says how output is shown, and records what was shown.
type logView struct {
	raw, out, err bool
	seen          api.SeenOutput
	lines         *lineWriter // with unfinished lines
}

func (l *logView) wants(stream string) bool {
	switch {
	case l.out == l.err:
		return true
	case l.out:
		return stream == "stdout"
	}
	return stream == "stderr"
}

// printFailedLogs prints the output of a sweep's failed trials.
func printFailedLogs(ctx context.Context, ui *console, c *api.Client, id grid.SweepID, view *logView) error {
	v, err := c.Sweeps().Get(ctx, id)
	if err != nil {
		return err
	}
	var indexes []int64 // collected first, so that the node does not wait while output is read
	for t, err := range c.Trials().List(ctx, v.Sweep, api.TrialQuery{States: []grid.State{grid.Failed}}) {
		if err != nil {
			return err
		}
		indexes = append(indexes, t.Index)
	}
	if len(indexes) == 0 {
		ui.say("no trial of %s has failed", v.Sweep)
	}
	for _, index := range indexes {
		all := grid.TrialID{Sweep: v.Sweep, Index: -1} // the lines are prefixed with their trial
		if err := printLogs(ctx, ui, c, all, view, api.LogQuery{Index: index}); err != nil {
			return err
		}
	}
	return nil
}

// loggedOutput is a piece of output as `logs --json` prints it. Invalid UTF-8 is replaced.
type loggedOutput struct {
	Trial  string    `json:"trial"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
	Text   string    `json:"text"`
}

func printLogs(ctx context.Context, ui *console, c *api.Client, id grid.TrialID, view *logView, q api.LogQuery) error {
	raw := id.Index >= 0 && (view.raw || !isTerminal(ui.stdout))
	v, err := c.Sweeps().Get(ctx, id.Sweep)
	if err != nil {
		return err
	}
	if view.lines == nil {
		view.lines = newLineWriter(v.Sweep, ui.colours(ui.stdout), func(line string) { fmt.Fprintln(ui.stdout, line) })
	}
	shown := view.lines
	for o, err := range c.Logs().Stream(ctx, v.Sweep, q) {
		if err != nil {
			return err
		}
		switch {
		case o.Cut > 0 || o.Gone > 0:
			if err := printLostOutput(ui, v.Sweep, &o, raw, shown); err != nil {
				return err
			}
		case !view.wants(o.Stream) || q.Follow && !view.seen.Fresh(&o):
		case ui.json:
			trial := grid.TrialID{Sweep: v.Sweep, Index: o.Index}.String()
			line := loggedOutput{trial, o.Stream, o.Time, string(o.Data)}
			if err := json.NewEncoder(ui.stdout).Encode(line); err != nil {
				return err
			}
		case !raw:
			shown.write(&o, time.Now())
		case o.Stream == "stdout":
			ui.stdout.Write(o.Data)
		default:
			ui.stderr.Write(o.Data)
		}
	}
	shown.flush()
	return nil
}
