package gpusetup

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"mlfnode/cluster/bootstrap/shell"
)

// Setup probes one machine, fixes what o allows, and reports. An error means that the machine could
// not be asked; everything that is wrong with the machine itself is in the report. onStep, unless
// it is nil, gets each step as it happens.
func Setup(ctx context.Context, m shell.Machine, o Options, onStep func(Step)) (Report, error) {
	if onStep == nil {
		onStep = func(Step) {}
	}
	s := &setup{m: m, o: o.withDefaults(), onStep: onStep, report: Report{DryRun: o.DryRun}}
	if err := s.probe(ctx); err != nil {
		return s.report, err
	}
	for _, c := range table() {
		line := Check{Name: c.name, Finding: c.run(s.h, s.o)}
		var err error
		if line.Verdict == Fix {
			line, err = s.fix(ctx, c, line)
		}
		if err == nil && line.Verdict == OK && c.trial != nil && !s.fixesStopped {
			line, err = s.runTrial(ctx, c, line)
		}
		s.fixesStopped = s.fixesStopped || line.Verdict == Stop
		s.report.Checks = append(s.report.Checks, line)
		onStep(Step{
			Check: line.Name, Verdict: line.Verdict, Text: cmp.Or(line.Cause, line.Note), Program: line.Program,
		})
		if err != nil {
			return s.report, err
		}
		if s.reboot || c.isLast != nil && c.isLast(s.h, line.Finding) {
			break
		}
	}
	s.report.Facts = s.h.facts(s.o.now())
	switch {
	case s.reboot:
		s.report.Outcome = Rebooting
	case s.h.hasNoGPU():
		s.report.Outcome = NoGPU
	case s.fixesStopped:
		s.report.Outcome = Stopped
	case s.fixPending:
		s.report.Outcome = Fixable
	case s.h.engine == engineDocker && s.report.Facts.Injection != "none":
		s.report.Outcome = Ready
	default:
		s.report.Outcome = Plain
	}
	return s.report, nil
}

// withDefaults returns the options with their defaults. Version stays "" if any recent one will do.
func (o Options) withDefaults() Options {
	o.Sudo = cmp.Or(o.Sudo, "sudo -n")
	o.Image = cmp.Or(o.Image, DefaultImage)
	o.Site = cmp.Or(o.Site, "https://nvidia.github.io/libnvidia-container")
	o.LockWait = cmp.Or(o.LockWait, 5*time.Minute)
	o.hooks.pause = cmp.Or(o.hooks.pause, "0.5")
	if o.now == nil {
		o.now = time.Now
	}
	return o
}

// setup is one run on one machine.
type setup struct {
	m            shell.Machine
	o            Options
	h            host // what the last probe found
	onStep       func(Step)
	report       Report
	fixesStopped bool // a check said Stop: no fix from here on
	fixPending   bool // a dry run found something to fix
	reboot       bool
}

// probe probes the machine.
func (s *setup) probe(ctx context.Context) error {
	text, err := shell.Output(ctx, s.m, s.o.program(probeProgram, nil), nil)
	if err != nil {
		return fmt.Errorf("probe the machine: %w", err)
	}
	s.h = parse(text)
	if !s.h.complete {
		return fmt.Errorf("probe the machine: its answer ends early, after %d lines", s.h.lines)
	}
	s.h.skew = s.h.clock.Sub(s.o.now())
	return nil
}

// fix runs the fix of a check and evaluates the check again.
func (s *setup) fix(ctx context.Context, c check, line Check) (Check, error) {
	body, vars := c.fix(s.h, s.o)
	line.Program, line.As = s.o.program(body, vars), s.sudo()
	if s.o.DryRun || s.fixesStopped {
		s.fixPending = true
		return line, nil
	}
	if s.h.root == "no" {
		line.Finding = stop(line.Cause+", and only root could change that",
			"log in as root for this once (root@HOST), or have an administrator run it")
		return line, nil
	}
	s.onStep(Step{Check: c.name, Text: "fixing this: " + line.Cause, Program: line.Program})
	s.report.Changed = append(s.report.Changed, c.name)
	said, err := shell.Output(ctx, s.m, s.runAs(line.As, line.Program), nil)
	if exit, ok := exitError(err); ok {
		line.Finding = stop(line.Cause+", and the fix did not work: "+exit.Error(), cmp.Or(c.cure, cureUnknown))
		return line, s.probe(ctx)
	}
	if err != nil {
		return line, fmt.Errorf("fix %s: %w", c.name, err)
	}
	if c.reboots {
		s.reboot = true
		line.Finding, line.Fixed = Finding{Verdict: OK, Note: "the machine is rebooting"}, true
		return line, nil
	}
	if said != "" {
		s.onStep(Step{Check: c.name, Text: said})
	}
	if err := s.probe(ctx); err != nil {
		return line, err
	}
	line.Finding = c.run(s.h, s.o)
	if line.Verdict == Fix {
		line.Verdict, line.Cause, line.Cure = Stop, "the fix ended well and changed nothing: "+line.Cause, cureUnknown
	}
	line.Fixed = line.Verdict != Stop
	return line, nil
}

// cureUnknown is what to do about a fix that failed, for want of something better.
const cureUnknown = "run the program of this check by hand to see more, put right what it complains of, and run gpu-setup again"

// runTrial runs the test of a check that needs one, and evaluates its output.
func (s *setup) runTrial(ctx context.Context, c check, line Check) (Check, error) {
	body, vars := c.trial(s.h, s.o)
	line.Program = s.o.program(body, vars)
	if s.h.root != "no" {
		line.As = s.sudo()
	}
	if s.o.DryRun {
		line.Finding = Finding{Verdict: Skip, Note: "a dry run starts no containers"}
		return line, nil
	}
	s.onStep(Step{Check: c.name, Text: "a trial container", Program: line.Program})
	text, err := shell.Output(ctx, s.m, s.runAs(line.As, line.Program), nil)
	if exit, ok := exitError(err); ok {
		line.Finding = stop("the trial broke off: "+exit.Error(), cureUnknown)
		return line, nil
	}
	if err != nil {
		return line, fmt.Errorf("try %s: %w", c.name, err)
	}
	line.Finding = c.evaluateTrial(s.h, text)
	return line, nil
}
