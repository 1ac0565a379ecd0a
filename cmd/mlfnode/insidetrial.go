package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node"
	"mlfnode/node/config"
)

// enclosingTrial names the trial in which this process runs, and the folder of its MLF_OUT:
// STATE/spool/N/out. Without a trial both are empty.
func enclosingTrial() (trial, out string) {
	if trial, out = os.Getenv("MLF_TRIAL"), os.Getenv("MLF_OUT"); trial == "" || out == "" {
		return "", ""
	}
	return trial, out
}

// trialNodeState is the state folder of the node that a trial has for sweeps of its own, which goes
// with the trial. It is empty outside of a trial, and where its agent is older and does not say
// what the trial may use.
func trialNodeState() string {
	trial, out := enclosingTrial()
	if trial == "" || os.Getenv("MLF_TRIAL_CPUS") == "" || os.Getenv("MLF_STATE") != "" {
		return ""
	}
	return filepath.Join(filepath.Dir(out), "node")
}

// useTrialNode has a sweep that a trial submits and follows run on a node of the trial's own, with
// what the trial has of the machine. One that names where it is to run goes there.
func (c *connector) useTrialNode(quiet bool) {
	if c.master != "" || c.state != "" || trialNodeState() == "" {
		return
	}
	c.local = true
	if trial, _ := enclosingTrial(); !quiet {
		c.say("the trials of this sweep share what trial %s has of this machine (cpus: %s)", trial, os.Getenv("MLF_TRIAL_CPUS"))
	}
}

// refuseInsideTrial refuses to follow a sweep from within a trial of the same node or cluster: the
// sweep would wait for slots that the trials hold while they wait for it.
func refuseInsideTrial(cfg *config.Config, d *destination) error {
	trial, out := enclosingTrial()
	if trial == "" || cfg.StateDir == trialNodeState() {
		return nil
	}
	state := filepath.Dir(filepath.Dir(filepath.Dir(out)))
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
