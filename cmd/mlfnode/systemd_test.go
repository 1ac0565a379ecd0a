package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/service/servicetest"
)

const (
	// soon bounds what takes a few seconds on a machine that is not busy.
	soon = 60 * time.Second
	// aside is where a test leaves a program for others to find.
	aside = "/root/download/"
)

// counting is a trial that notes its process and prints sixty lines in six seconds, and fails in
// its own way. What it has started would stay for longer.
const counting = `mkdir -p /tmp/ran/$MLF_TRIAL; touch /tmp/ran/$MLF_TRIAL/$$; setsid sleep 300 >/dev/null 2>&1 & ` +
	`n=0; while [ $n -lt 60 ]; do echo line $n; n=$((n+1)); sleep 0.1; done; exit 3`

// wholeOutput is what a trial has printed at its end.
func wholeOutput() string {
	var b strings.Builder
	for n := range 60 {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return strings.TrimSpace(b.String())
}

// buildRelease builds the program as a release, as `make build RELEASE=…` does.
func buildRelease(t *testing.T, release string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "mlfnode")
	if out, err := exec.Command("go", "build", "-ldflags", "-X main.release="+release, "-o", bin,
		".").CombinedOutput(); err != nil {
		t.Fatalf("build release %s: %v\n%s", release, err, out)
	}
	return bin
}

// post is a machine with a service of mlfnode, and the sweep that runs there.
type post struct {
	*servicetest.Machine
	t     *testing.T
	sweep string
	count int
}

// submit starts a sweep of counting trials and returns when so many of them have printed something.
func (p *post) submit(count, begun int) {
	p.t.Helper()
	p.count = count
	p.Run("rm -rf /tmp/ran")
	p.sweep = p.Run(
		fmt.Sprintf(
			"mlfnode sweep --detach --retries 0 --set i=0:%d -- sh -c '%s' 2>/tmp/complaint || { cat /tmp/complaint; false; }",
			count, counting))
	p.Until(soon, "trials print", func() bool {
		n := 0
		for _, tr := range p.trials() {
			if out, _ := p.Try("mlfnode logs --stdout " + tr.Trial); strings.Contains(out, "line 9\n") {
				n++
			}
		}
		return n >= begun
	})
}

func (p *post) trials() (all []api.Trial) {
	p.t.Helper()
	read(p.t, p.Run("mlfnode trials --json "+p.sweep), &all)
	return all
}

func read(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
}

// runs gives how often trials have been started.
func runs(m *servicetest.Machine) int {
	out, _ := m.Try("find /tmp/ran -type f | wc -l")
	n, _ := strconv.Atoi(out)
	return n
}

// ended waits for the end of the sweep, and wants each trial to have failed in its own way after so
// many attempts, with its whole output. where are the machines that it ran on.
func (p *post) ended(attempts int, where ...*servicetest.Machine) {
	p.t.Helper()
	p.Until(soon, "the sweep ends", func() bool {
		return !slices.ContainsFunc(p.trials(), func(t api.Trial) bool { return !t.State.Terminal() })
	})
	for _, tr := range p.trials() {
		if tr.State != "failed" || tr.ExitCode == nil || *tr.ExitCode != 3 || tr.Attempts > attempts {
			p.t.Errorf("got %s %s with exit code %v after %d attempts (%s), want failed with 3 after %d\n%s", tr.Trial,
				tr.State, tr.ExitCode,
				tr.Attempts, tr.Reason, attempts, p.Run("mlfnode trials "+tr.Trial))
		}
		if got := p.Run("mlfnode logs --stdout " + tr.Trial); got != wholeOutput() {
			p.t.Errorf("%s: got output\n%s", tr.Trial, got)
		}
	}
	started := 0
	for _, m := range where {
		started += runs(m)
		nothingRuns(p.t, m)
	}
	if started > attempts*p.count || (attempts == 1 && started != p.count) {
		p.t.Errorf("got %d runs of %d trials, want %d attempts each at most", started, p.count, attempts)
	}
}

// nothingRuns wants no process of a trial and no cgroup of one to be left.
func nothingRuns(t *testing.T, m *servicetest.Machine) {
	t.Helper()
	m.Until(soon, "nothing of the trials runs", func() bool {
		return m.Run(
			"for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep '^sleep 300'; done; true") == ""
	})
}

// agent gives the process of the service.
func agent(m *servicetest.Machine) string {
	return m.Run("systemctl show mlfnode.service --value -p MainPID")
}

// replaced does what makes the service's agent end, and waits until another one is ready.
func replaced(t *testing.T, m *servicetest.Machine, script string) {
	t.Helper()
	old, began := agent(m), time.Now()
	m.Run(strings.ReplaceAll(script, "AGENT", old))
	m.Until(soon, "another agent is ready", func() bool {
		now := agent(m)
		return now != old && now != "0" && m.Run("systemctl show mlfnode.service --value -p ActiveState") == "active"
	})
	t.Logf("%s: ready again after %v", script, time.Since(began).Round(time.Millisecond))
}

// masterOn installs a master.
func masterOn(t *testing.T, m *servicetest.Machine, program string) *post {
	t.Helper()
	m.Copy(program, aside+"mlfnode")
	began := time.Now()
	if out := m.Run(aside + "mlfnode service install --role master"); !strings.Contains(out, "the service is active") {
		t.Fatalf("install: got\n%s", out)
	}
	t.Logf("a master is ready %v after its installation began", time.Since(began).Round(time.Millisecond))
	if got := m.Run("journalctl -o cat -q -u mlfnode.service"); strings.Contains(got, "level=WARN") ||
		strings.Contains(got, "level=ERROR") {
		t.Errorf("a node starts and complains:\n%s", got)
	}
	return &post{Machine: m, t: t}
}

// TestMasterService takes the service of a master through its life while trials run.
func TestMasterService(t *testing.T) {
	if testing.Short() {
		t.Skip("a machine takes its time, and its program is not the one that -race looks at")
	}
	older, newer := buildRelease(t, "1.4.0"), buildRelease(t, "1.5.0")
	m := servicetest.Boot(t)
	m.Run("mkdir -p " + aside)
	before := m.Run(everything)
	masterOn(t, m, older)

	survives := func(name, script string) {
		t.Run(name, func(t *testing.T) {
			p := &post{Machine: m.For(t), t: t}
			p.submit(2, 2)
			replaced(t, p.Machine, script)
			p.ended(1, p.Machine)
		})
	}
	t.Run("cgroups", func(t *testing.T) { cgroupsOfTrials(t, m.For(t)) })
	survives("restart", "systemctl restart mlfnode")
	survives("kill", "kill -9 AGENT")
	m.Copy(newer, aside+"newer")
	survives("upgrade", "mv "+aside+"newer "+aside+"mlfnode && "+aside+"mlfnode service install --role master >&2")
	if got := m.Run("mlfnode version"); !strings.HasPrefix(got, "mlfnode 1.5.0 ") {
		t.Errorf("after the upgrade: got %s", got)
	}
	m.Run("mkdir -p /run/systemd/system/mlfnode.service.d && printf '[Service]\\nWatchdogSec=2\\n' > /run/systemd/system/mlfnode.service.d/fast.conf && systemctl daemon-reload && systemctl restart mlfnode")
	survives("watchdog", "kill -STOP AGENT")
	if got := m.Run("journalctl -o cat -q -u mlfnode.service"); !strings.Contains(got, "Watchdog timeout") {
		t.Errorf("got journal without the watchdog:\n%s", got)
	}
	m.Run("rm -r /run/systemd/system/mlfnode.service.d && systemctl daemon-reload && systemctl restart mlfnode")
	t.Run("shim", func(t *testing.T) { shimDies(t, m.For(t)) })
	t.Run("stop", func(t *testing.T) { stopAndStart(t, m.For(t)) })
	t.Run("reload", func(t *testing.T) { reloadSettings(t, m.For(t)) })

	m.Run("mlfnode service uninstall --purge && rm -rf /root/download/* /tmp/ran /tmp/complaint")
	nothingLeft(t, m)
	if after := m.Run(everything); after != before {
		t.Errorf("the host is not as before; it was\n%s\nand is\n%s", before, after)
	}
}

// cgroupsOfTrials looks at where a shim and its trials are: in a scope beside the service, which a
// restart leaves alone.
func cgroupsOfTrials(t *testing.T, m *servicetest.Machine) {
	p := &post{Machine: m, t: t}
	p.submit(1, 1)
	if got := m.Run("cat /proc/" + shimOn(m) + "/cgroup"); !strings.Contains(got, "/system.slice/mlfnode-shim-") ||
		strings.Contains(got, "mlfnode.service") {
		t.Errorf("the shim is in %s, want a scope", got)
	}
	if got := m.Run("cat /proc/$(find /tmp/ran -type f -printf %f)/cgroup"); !strings.Contains(got, ".scope/mlfnode-") {
		t.Errorf("the trial is in %s, want a cgroup of its own in a scope", got)
	}
	m.Run("mlfnode cancel " + p.sweep)
	nothingRuns(t, m)
}

// shimOn gives the process of the machine's one shim.
func shimOn(m *servicetest.Machine) string {
	return m.Run(`sed 's/.*"pid":\([0-9]*\).*/\1/' /var/lib/mlfnode/shims/*/process.json`)
}

// everything lists what an installation may leave: files, units and programs that run.
const everything = `find /etc /usr /var/lib /root /home /tmp /opt -xdev -not -path '/var/lib/systemd*' -not -path '/tmp/systemd-private-*' -printf '%y %m %p\n' | sort
systemctl list-units --all --no-legend --plain --no-pager 'mlf*'
for p in /proc/[0-9]*; do readlink $p/exe; done | grep -v -e systemd -e /bin/
true`

// nothingLeft wants no shim, no scope, no cgroup and no process of mlfnode.
func nothingLeft(t *testing.T, m *servicetest.Machine) {
	t.Helper()
	nothingRuns(t, m)
	for what, script := range map[string]string{
		"scopes":    "systemctl list-units --all --no-legend --plain --no-pager 'mlfnode-*'",
		"cgroups":   "find /sys/fs/cgroup -name 'mlfnode-*'",
		"processes": "for p in /proc/[0-9]*; do readlink $p/exe; done | grep mlfnode; true",
	} {
		if got := m.Run(script); got != "" {
			t.Errorf("got %s left:\n%s", what, got)
		}
	}
}

// shimDies kills the process that keeps trials: they are lost, and run again. Its scope stays,
// since something else is in it.
func shimDies(t *testing.T, m *servicetest.Machine) {
	p := &post{Machine: m, t: t}
	p.submit(2, 2)
	stray := m.Run("setsid sleep 1000 >/dev/null 2>&1 & for f in $(grep -rlx --include=cgroup.procs " + shimOn(m) +
		" /sys/fs/cgroup/system.slice); do echo $! >$f; done; echo $!")
	m.Run("kill -9 " + shimOn(m))
	p.ended(2, m)
	if got := m.Run("systemctl list-units --all --no-legend --plain --no-pager 'mlfnode-shim-*.scope'"); strings.Count(
		got, "\n") < 1 {
		t.Errorf("got scopes\n%s\nwant that of the dead shim and another one", got)
	}
	m.Run("kill " + stray)
	for _, tr := range p.trials() {
		if out := m.Run("mlfnode trials " + tr.Trial); tr.Attempts != 2 {
			t.Errorf("got %d attempts, want 2\n%s", tr.Attempts, out)
		} else {
			t.Logf("\n%s", out)
		}
	}
}

// stopAndStart stops the service: nothing runs any more. Started again, it brings the sweep to its
// end.
func stopAndStart(t *testing.T, m *servicetest.Machine) {
	p := &post{Machine: m, t: t}
	p.submit(3, 2)
	began := time.Now()
	m.Run("systemctl stop mlfnode")
	t.Logf("stopped after %v", time.Since(began).Round(time.Millisecond))
	if got := m.Run("systemctl show mlfnode.service --value -p Result -p ActiveState"); !strings.Contains(got,
		"success") || !strings.Contains(got, "inactive") {
		t.Errorf("got %s, want a clean end", got)
	}
	nothingLeft(t, m)
	began = time.Now()
	m.Run("systemctl start mlfnode")
	t.Logf("started after %v", time.Since(began).Round(time.Millisecond))
	p.ended(2, m)
}

// reloadSettings changes node.yaml while trials run.
func reloadSettings(t *testing.T, m *servicetest.Machine) {
	p := &post{Machine: m, t: t}
	p.submit(2, 2)
	pid := agent(m)
	m.Run("printf 'cpus: 0.5\\n' >> /etc/mlfnode/node.yaml && systemctl reload mlfnode")
	m.Until(soon, "members show the new number of processors", func() bool {
		var all []api.Member
		read(t, m.Run("mlfnode members --json"), &all)
		return len(all) == 1 && all[0].CPUs == 0.5
	})
	if got := agent(m); got != pid {
		t.Errorf("got agent %s, want %s to go on", got, pid)
	}
	t.Logf("\n%s\n%s", m.Run("mlfnode members"), m.Run("mlfnode service status"))
	m.Run("printf 'memory: nonsense\\n' >> /etc/mlfnode/node.yaml && systemctl reload mlfnode")
	m.Until(soon, "the node says that its settings are wrong", func() bool {
		return strings.Contains(m.Run("mlfnode service status"), "node.yaml has errors")
	})
	if got := m.Run("journalctl -o cat -q -n 20 -u mlfnode.service"); !strings.Contains(got,
		`\"nonsense\" is not a size`) {
		t.Errorf("the journal does not say what is wrong:\n%s", got)
	}
	m.Run("sed -i '/^memory/d;/^cpus/d' /etc/mlfnode/node.yaml && systemctl reload mlfnode")
	p.ended(1, m)
	if got := agent(m); got != pid {
		t.Errorf("got agent %s, want %s to go on after wrong settings", got, pid)
	}
}
