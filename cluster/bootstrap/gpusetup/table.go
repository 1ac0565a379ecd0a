package gpusetup

import "time"

// check is one row of the table: how a thing is judged and, where that can be, put right.
type check struct {
	name  string
	judge func(host, Options) Finding
	// fix gives the program for a verdict Fix, with the variables it reads. It runs as root.
	fix func(host, Options) (program string, vars map[string]string)
	// trial gives a program whose output tried judges, and whether there is anything to try.
	trial   func(host, Options) (program string, vars map[string]string, needed bool)
	tried   func(host, string) Finding
	last    func(host, Finding) bool // no check after this one makes sense
	cure    string                   // for a fix that fails
	reboots bool                     // the fix takes the machine away
}

// table lists the checks in their order: a fix may rely on every check before its own.
func table() []check {
	return []check{
		{name: "hardware", judge: judgeHardware, last: func(h host, _ Finding) bool { return h.bare() }},
		{name: "access", judge: judgeAccess},
		{name: "platform", judge: judgePlatform},
		{name: "driver", judge: judgeDriver, fix: fixReboot, reboots: true},
		{name: "engine", judge: judgeEngine},
		{name: "leftovers", judge: judgeLeftovers, fix: fixLeftovers},
		{name: "toolkit", judge: judgeInstall, fix: fixInstall,
			cure: "read what apt says above; an interrupted installation is ended by dpkg --configure -a as root"},
		{name: "configuration", judge: judgeConfigure, fix: fixConfigure, cure: "read Docker's log (journalctl -u docker)"},
		{name: "cdi", judge: judgeCDI, fix: fixCDI, cure: "run nvidia-ctk cdi generate as root and read what it says"},
		{name: "trial", judge: judgeSmoke, trial: trySmoke, tried: judgeTrial},
	}
}

func fixReboot(host, Options) (string, map[string]string) { return rebootProgram, nil }

// facts are what is worth keeping of a probe.
func (h *host) facts(now time.Time) Facts {
	f := Facts{System: h.system(), Arch: h.arch, Kernel: h.kernel, GPUs: h.gpus, CUDA: h.cuda(), Toolkit: h.toolkit(),
		Injection: h.injection(), Plain: h.works(), Checked: now.UTC()}
	if h.works() || h.running != "" {
		f.Driver = h.driver()
	}
	if h.engine != absent {
		f.Engine = string(h.engine)
	}
	if h.engine == serving {
		f.Engine += " " + h.info.ServerVersion
	}
	if len(f.GPUs) == 0 {
		f.GPUs = []GPU{}
		for _, g := range h.whole() {
			f.GPUs = append(f.GPUs, GPU{UUID: g.uuid, Model: g.model})
		}
	}
	return f
}
