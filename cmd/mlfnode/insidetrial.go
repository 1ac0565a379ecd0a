package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node"
)

// enclosingTrial returns the trial in which this process runs and the folder of its MLF_OUT,
// STATE/spool/N/out. Outside a trial both are empty.
func enclosingTrial() (trial, out string) {
	if trial, out = os.Getenv("MLF_TRIAL"), os.Getenv("MLF_OUT"); trial == "" || out == "" {
		return "", ""
	}
	return trial, out
}

// trialNodeState returns the state folder of the node that a trial has for sweeps of its own, which
// is removed with the trial. It is empty outside a trial, and if the trial's agent is too old to
// say what the trial may use.
func trialNodeState() string {
	trial, out := enclosingTrial()
	if trial == "" || os.Getenv("MLF_TRIAL_CPUS") == "" || os.Getenv("MLF_STATE") != "" {
		return ""
	}
	return filepath.Join(filepath.Dir(out), "node")
}

// useTrialNode makes a sweep that a trial submits and follows run on the trial's own node, with the
// trial's share of the machine, unless flags say where to run it.
func (c *connector) useTrialNode(quiet bool) {
	if c.master != "" || c.state != "" || trialNodeState() == "" {
		return
	}
	c.local = true
	if trial, _ := enclosingTrial(); !quiet {
		c.say("the trials of this sweep share the part of this machine that trial %s holds (cpus: %s)", trial,
			os.Getenv("MLF_TRIAL_CPUS"))
	}
}

// refuseInsideTrial refuses to follow a sweep from inside a trial of the same node or cluster: the
// sweep would wait for slots that trials hold while they wait for the sweep.
func refuseInsideTrial(d *destination) error {
	trial, out := enclosingTrial()
	if trial == "" || d.cfg.StateDir == trialNodeState() {
		return nil
	}
	state := filepath.Dir(filepath.Dir(filepath.Dir(out)))
	if d.alone() {
		rest, err := filepath.Rel(d.cfg.StateDir, out)
		if err != nil || rest == ".." || strings.HasPrefix(rest, "../") {
			return nil
		}
	} else if node.RoleOf(state) == "" {
		return nil
	}
	return failed(fmt.Sprintf("this runs inside trial %s: the sweep would wait for a slot that this trial holds, "+
		"and the trial for the sweep", trial),
		`-d submits it and returns immediately; --local --state-dir "$(mktemp -d)" runs it on a separate node`)
}
