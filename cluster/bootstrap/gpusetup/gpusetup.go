// Package gpusetup makes a machine with NVIDIA GPUs ready for containers: it probes, evaluates,
// fixes and probes again. One script (probe.sh) gathers all facts, as any user and without changing
// anything. A table of checks (checktable.go) evaluates them; each check is a pure function of the
// probe's output. If a check finds something that can be fixed, a second script fixes it as root,
// and the check is evaluated again. Nothing is done twice: on a machine that is ready, every check
// passes immediately. The driver is never installed: that is the choice of the machine's owner.
package gpusetup

import (
	"time"
)

// DefaultVersion is the version of the NVIDIA container toolkit that is installed unless another
// one is asked for.
const DefaultVersion = "1.19.1"

// DefaultImage is what the last check runs nvidia-smi in: any small image with glibc does, the
// toolkit brings the program.
const DefaultImage = "debian:12-slim"

// Options say what may be done to a machine. The zero value fixes what can be fixed without
// disturbing anybody.
type Options struct {
	DryRun        bool   // change nothing, and report which programs would be run
	Reboot        bool   // the machine may be rebooted if nothing else helps; its node must be drained
	RestartDocker bool   // Docker may be restarted although containers run and would end
	Sudo          string // what makes a program run as root for a user who is not; "" for "sudo -n"
	// of the toolkit, "1.19.1"; "" for DefaultVersion, or for minVersion and newer if it is
	// installed
	Version  string
	Image    string        // image for the last check; "" for DefaultImage, "-" for no such check
	Site     string        // where NVIDIA's packages are, or a mirror of them; "" for NVIDIA's own site
	LockWait time.Duration // how long to wait for another installation to end; 0 for five minutes

	now   func() time.Time // the clock that the machine's is compared with; time.Now when nil
	hooks testHooks
}

// testHooks moves a machine's files elsewhere, for tests.
type testHooks struct{ root, prelude, pause string }

// Verdict is the result of a check.
type Verdict string

// The verdicts of a check. Stop means that no later fix is tried.
const (
	OK   Verdict = "ok"
	Fix  Verdict = "fix"
	Warn Verdict = "warn"
	Stop Verdict = "stop"
	Skip Verdict = "skip"
)

// Finding is the result of a check, for the machine's user: what is there, what is wrong with it,
// and what to do.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	Note    string  `json:"note,omitempty"` // what is there, or why the check was skipped
	Cause   string  `json:"cause,omitempty"`
	Cure    string  `json:"cure,omitempty"`
}

// Check is one line of the report.
type Check struct {
	Name string `json:"name"`
	Finding
	Program string `json:"program,omitempty"` // what fixed it, or would, for /bin/sh
	As      string `json:"as,omitempty"`      // what the program is run by to run as root, "" for the user's own rights
	Fixed   bool   `json:"fixed,omitempty"`
}

// Step is progress on a machine: a program before it runs, or a verdict.
type Step struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict,omitempty"` // "" when something begins
	Text    string  `json:"text"`
	Program string  `json:"program,omitempty"`
}

// Outcome is the verdict on a whole machine.
type Outcome string

// The outcomes. Only with Stopped must the user act before the machine's GPUs can be used as they
// should.
const (
	Ready     Outcome = "ready"
	Plain     Outcome = "ready for plain processes"
	NoGPU     Outcome = "no GPU: the node works as a CPU node"
	Fixable   Outcome = "not ready: gpu-setup can fix it"
	Rebooting Outcome = "rebooting: run gpu-setup again when the machine is back"
	Stopped   Outcome = "stopped"
)

// Report is everything about one machine.
type Report struct {
	Outcome Outcome  `json:"outcome"`
	DryRun  bool     `json:"dry_run,omitempty"`
	Facts   Facts    `json:"facts"`
	Checks  []Check  `json:"checks"`
	Changed []string `json:"changed,omitempty"` // names of checks whose fix was run
}

// GPU is one device as the driver names it.
type GPU struct {
	Index   string `json:"index"`
	UUID    string `json:"uuid"`
	Model   string `json:"model"`
	Memory  string `json:"memory_mib,omitempty"`
	MIG     string `json:"mig,omitempty"`
	Compute string `json:"compute_mode,omitempty"`
}

// Facts are worth keeping about a node.
type Facts struct {
	System    string    `json:"system"` // "Ubuntu 24.04.2 LTS"
	Arch      string    `json:"arch"`
	Kernel    string    `json:"kernel"`
	GPUs      []GPU     `json:"gpus"`
	Driver    string    `json:"driver,omitempty"`
	CUDA      string    `json:"cuda,omitempty"` // newest version the driver can serve
	Engine    string    `json:"engine,omitempty"`
	Toolkit   string    `json:"toolkit,omitempty"`
	Injection string    `json:"injection"` // how containers get GPUs: "cdi", "runtime" or "none"
	Plain     bool      `json:"plain"`     // processes without a container can use the GPUs
	Checked   time.Time `json:"checked"`
}
