package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node"
)

// notInside refuses to follow a sweep from within a trial of the same node or cluster: the sweep would wait for slots that the trials
// hold while they wait for it.
func (a *app) notInside(cfg *node.Config, d *destination) error {
	trial, out := os.Getenv("MLF_TRIAL"), os.Getenv("MLF_OUT")
	if trial == "" || out == "" {
		return nil
	}
	state := filepath.Dir(filepath.Dir(filepath.Dir(out))) // of the node that runs the trial: STATE/spool/N/out
	if d.alone() {
		rest, err := filepath.Rel(cfg.StateDir, out)
		if err != nil || rest == ".." || strings.HasPrefix(rest, "../") {
			return nil
		}
	} else if node.RoleOf(state) == "" {
		return nil
	}
	return failed(fmt.Sprintf("this runs inside trial %s: the sweep would wait for a slot that this trial holds, and the trial for the sweep", trial),
		`-d submits it and returns at once; --local --state-dir "$(mktemp -d)" runs it on a separate node`)
}
