package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cmd/mlfnode/report"
	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node"
	"mlfnode/node/api"
)

// reportBest is how many trials a report lists.
const reportBest = 20

func reportCommand(a *app) *cobra.Command {
	output := ""
	c := onSweep("report SWEEP", "Write a sweep with its charts into one HTML file",
		`  mlfnode report last
  mlfnode report chainer-1 -o chainer.html`,
		func(ctx context.Context, id grid.TrialID) error {
			if id.Index >= 0 {
				return usage("a report covers a whole sweep", "mlfnode report "+string(id.Sweep))
			}
			var d *report.Data
			err := a.withSession(ctx, func(s *node.Session) (err error) {
				d, err = reportData(ctx, s.Client(), id.Sweep)
				return err
			})
			if err != nil {
				return err
			}
			if output == "-" {
				return d.Write(a.stdout)
			}
			if output == "" {
				output = string(d.Sweep.Sweep) + ".html"
			}
			if err := writeWhole(output, d.Write); err != nil {
				return failed(fmt.Sprintf("the report can't be written to %s: %v", output, problem.WithoutPath(err)),
					"write it elsewhere with: -o FILE")
			}
			a.say("%s is in %s", d.Sweep.Sweep, output)
			return nil
		})
	c.Long = `Write a sweep as one HTML file: its figures, its best trials, and its charts. The file opens in any
browser, needs neither a network nor mlfnode, and contains no script. The data of the charts is in
the file as well, as JSON.`
	c.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output (default SWEEP.html)")
	return c
}

// reportData fetches what a report contains.
func reportData(ctx context.Context, client *api.Client, id grid.SweepID) (*report.Data, error) {
	v, err := client.Sweeps().Get(ctx, id)
	if err != nil {
		return nil, err
	}
	d := &report.Data{Sweep: v, Charts: map[string]json.RawMessage{}, Missing: map[string]string{}, Made: time.Now(),
		Version: version().Version}
	q := api.TrialQuery{Limit: reportBest}
	if v.Objective != nil {
		q = bestQuery(v.Objective, reportBest)
	}
	for t, err := range client.Trials().List(ctx, v.Sweep, q) {
		if err != nil {
			return nil, err
		}
		d.Best = append(d.Best, t)
	}
	for _, name := range report.Charts() {
		q, ok := d.Query(name)
		if !ok {
			continue
		}
		body, err := client.Trials().Chart(ctx, v.Sweep, name, q)
		var refusal *api.Error
		switch {
		case errors.As(err, &refusal) && refusal.Status < http.StatusInternalServerError:
			d.Missing[name] = refusal.Error()
		case err != nil:
			return nil, fmt.Errorf("%s of %s: %w", name, v.Sweep, err)
		default:
			d.Charts[name] = body
		}
	}
	return d, nil
}
