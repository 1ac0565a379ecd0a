package gpusetup

import "time"

// check is one row of the table: how something is evaluated and, if possible, fixed.
type check struct {
	name     string
	evaluate func(host, Options) Finding
	// fix returns the program for a verdict Fix, with the variables that it reads. It runs as root.
	fix func(host, Options) (program string, vars map[string]string)
	// trial returns a program for a verdict OK, whose output evaluateTrial evaluates.
	trial         func(host, Options) (program string, vars map[string]string)
	evaluateTrial func(host, string) Finding
	isLast        func(host, Finding) bool // no check after this one makes sense
	cure          string                   // for a fix that fails
	reboots       bool                     // the fix takes the machine away
	ofToolkit     bool                     // skipped where the toolkit has nobody to serve
}

// run evaluates the check.
func (c *check) run(h host, o Options) Finding {
	switch {
	case c.ofToolkit && h.container:
		return Finding{Verdict: Skip, Note: "the toolkit belongs to the host of this container"}
	case c.ofToolkit && h.engine != engineDocker:
		return Finding{Verdict: Skip, Note: "no Docker server to serve"}
	}
	return c.evaluate(h, o)
}

// table lists the checks in their order: a fix may rely on every check before its own.
func table() []check {
	run := func(program string) func(host, Options) (string, map[string]string) {
		return func(host, Options) (string, map[string]string) { return program, nil }
	}
	return []check{
		{name: "hardware", evaluate: checkHardware, isLast: func(h host, _ Finding) bool { return h.hasNoGPU() }},
		{name: "access", evaluate: checkAccess},
		{name: "platform", evaluate: checkPlatform},
		{name: "driver", evaluate: checkDriver, fix: run(rebootProgram), reboots: true},
		{name: "engine", evaluate: checkEngine},
		{name: "leftovers", ofToolkit: true, evaluate: checkLeftovers, fix: fixLeftovers},
		{name: "toolkit", ofToolkit: true, evaluate: checkToolkit, fix: fixToolkit,
			cure: "read what apt says above; an interrupted installation is ended by dpkg --configure -a as root"},
		{name: "configuration", ofToolkit: true, evaluate: checkConfiguration, fix: fixConfiguration,
			cure: "read Docker's log (journalctl -u docker)"},
		{name: "cdi", ofToolkit: true, evaluate: checkCDI, fix: run(cdiProgram),
			cure: "run nvidia-ctk cdi generate as root and read what it says"},
		{name: "trial", ofToolkit: true, evaluate: checkSmokeTest, trial: smokeTest, evaluateTrial: evaluateSmokeTest},
	}
}

// facts returns what is worth keeping of a probe.
func (h *host) facts(now time.Time) Facts {
	f := Facts{System: h.system(), Arch: h.arch, Kernel: h.kernel, GPUs: h.gpus, CUDA: h.cuda,
		Toolkit:   h.toolkitVersion(),
		Injection: h.injection(), Plain: h.driverWorks(), Checked: now.UTC()}
	if h.driverWorks() || h.moduleVersion != "" {
		f.Driver = h.driver.version()
	}
	if h.engine != engineNone {
		f.Engine = string(h.engine)
	}
	if h.engine == engineDocker {
		f.Engine += " " + h.info.ServerVersion
	}
	if len(f.GPUs) == 0 {
		f.GPUs = []GPU{}
		for _, g := range h.wholeGPUs() {
			f.GPUs = append(f.GPUs, GPU{UUID: g.uuid, Model: g.model})
		}
	}
	return f
}
