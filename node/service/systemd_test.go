package service_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/node/service"
	"mlfnode/node/service/servicetest"
)

// soon bounds what takes milliseconds on a machine that is not busy.
const soon = 30 * time.Second

// standin builds the stand-in and puts it where a person may have left it.
func standin(t *testing.T, m *servicetest.Machine) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "standin")
	c := exec.Command("go", "build", "-o", bin, "./testdata/standin")
	c.Env = append(c.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the stand-in: %v\n%s", err, out)
	}
	m.Copy(bin, "/root/download/standin")
}

func property(m *servicetest.Machine, name string) string {
	return m.Run("systemctl show mlfnode.service --value -p " + name)
}

func note(m *servicetest.Machine, name string) string {
	out, _ := m.Try("cat /tmp/standin/" + name)
	return out
}

// TestSystemService takes the service of a worker through its life on a machine with a real systemd.
func TestSystemService(t *testing.T) {
	m := servicetest.Boot(t)
	standin(t, m)
	before := m.Run(listing)

	began := time.Now()
	var r service.Report
	decode(t, m.Run("/root/download/standin install --seed hostA"), &r)
	t.Logf("installed and active after %v", time.Since(began).Round(time.Millisecond))
	if !r.Started || r.Program != "/usr/local/bin/mlfnode" || len(r.Notes) > 0 {
		t.Errorf("got report %+v, want a started service that runs a copy of the program", r)
	}
	if got, want := note(m, "started"), "join /etc/mlfnode/node.yaml [] /root"; got != want {
		t.Errorf("got agent %q, want %q", got, want)
	}
	if got := m.Run("stat -c %a /etc/mlfnode/node.yaml /var/lib/mlfnode"); got != "600\n700" {
		t.Errorf("got modes %q, want settings and state for root alone", got)
	}
	if got := m.Run("cat /etc/mlfnode/node.yaml"); !strings.Contains(got, "\nstate: \"/var/lib/mlfnode\"\n") || !strings.Contains(got, "\nseed: \"hostA\"") {
		t.Errorf("got settings\n%s", got)
	}

	t.Run("verify", func(t *testing.T) { verify(t, m.For(t)) })
	t.Run("keeper", func(t *testing.T) { keeperStarts(t, m.For(t)) })
	t.Run("status", func(t *testing.T) { status(t, m.For(t)) })
	t.Run("reload", func(t *testing.T) { reload(t, m.For(t)) })
	t.Run("restart", func(t *testing.T) { restart(t, m.For(t)) })
	t.Run("update", func(t *testing.T) { update(t, m.For(t)) })
	t.Run("kill", func(t *testing.T) { kill(t, m.For(t)) })
	t.Run("watchdog", func(t *testing.T) { watchdog(t, m.For(t)) })
	t.Run("signal", func(t *testing.T) { signalByHand(t, m.For(t)) })
	t.Run("stop", func(t *testing.T) { stop(t, m.For(t)) })

	m.Run("systemctl start mlfnode")
	var gone service.Removal
	decode(t, m.Run("/usr/local/bin/mlfnode uninstall"), &gone)
	if len(gone.Kept) > 0 {
		t.Errorf("got kept %q, want nothing left", gone.Kept)
	}
	m.Run("rm -r /tmp/standin")
	if after := m.Run(listing); after != before {
		t.Errorf("got after the uninstallation\n%s\nwant as before\n%s", after, before)
	}
}

// listing shows everything that an installation may leave: files, units, and processes.
const listing = `find /etc /usr /var/lib /root /home /tmp /opt -xdev -not -path '/var/lib/systemd/*' -not -path '/tmp/systemd-private-*' -printf '%p %m %s\n' | grep -v '^/etc [^/]*$' | sort | grep -v -e ' /dev/null$' -e '^/\(etc\|tmp\|root\|usr/local/bin\|var/lib\|etc/systemd/system\(/multi-user.target.wants\)\?\) '
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}' | sort
systemctl list-units --all --no-legend --plain --no-pager | grep -i -e mlf -e keeper
for p in /proc/[0-9]*; do readlink $p/exe; done | grep -v -e systemd -e /bin/ | sort
true`

func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
}

// verify asks systemd what it thinks of the unit.
func verify(t *testing.T, m *servicetest.Machine) {
	if got := m.Run("systemd-analyze verify mlfnode.service 2>&1"); got != "" {
		t.Errorf("systemd-analyze verify says\n%s", got)
	}
	lines := strings.Split(m.Run("systemd-analyze security --no-pager mlfnode.service"), "\n")
	t.Log(lines[len(lines)-1])
	if m.Run("systemd --version | sed -n 's/^systemd \\([0-9]*\\).*/\\1/p'") >= "253" {
		t.Log(property(m, "Type"))
	}
}

// keeperStarts looks at what a keeper inherits, which is what trials get.
func keeperStarts(t *testing.T, m *servicetest.Machine) {
	pid := note(m, "keeper")
	if note(m, "scope") != "true" || pid == "" {
		t.Fatalf("got scope %q, keeper %q, want a keeper in a scope", note(m, "scope"), pid)
	}
	m.Until(soon, "the keeper has become itself", func() bool {
		out, _ := m.Try("tr '\\0' ' ' < /proc/" + pid + "/cmdline")
		return strings.HasPrefix(out, "sleep")
	})
	if got := m.Run("cat /proc/" + pid + "/cgroup"); !strings.HasSuffix(got, "/mlfnode-keeper-standin-1.scope") {
		t.Errorf("got cgroups %q, want a scope", got)
	}
	for name, script := range map[string]string{
		"the chance to be chosen when memory is short": "test $(cat /proc/PID/oom_score_adj) = 0",
		"no line to systemd":                           "! tr '\\0' '\\n' < /proc/PID/environ | grep -q -e NOTIFY_SOCKET -e WATCHDOG",
		"new privileges by sudo":                       "grep -q 'NoNewPrivs:.0' /proc/PID/status",
		"the namespaces of the host":                   "test $(readlink /proc/PID/ns/mnt) = $(readlink /proc/1/ns/mnt)",
		"a login shell's limit of open files":          "grep -q 'Max open files *1024 ' /proc/PID/limits",
		"a home":                                       "tr '\\0' '\\n' < /proc/PID/environ | grep -q ^HOME=/root$",
	} {
		if out, err := m.Try(strings.ReplaceAll(script, "PID", pid)); err != nil {
			t.Errorf("a keeper has not got %s: %v %s", name, err, out)
		}
	}
	if got := m.Run("cat /proc/" + property(m, "MainPID") + "/oom_score_adj"); got != "-500" {
		t.Errorf("got agent with oom_score_adj %s, want -500", got)
	}
}

func status(t *testing.T, m *servicetest.Machine) {
	var s service.State
	decode(t, m.Run("/root/download/standin status"), &s)
	if !s.Installed || !s.Enabled || s.Active != "active" || s.Text != "serving" || s.PID == 0 || len(s.Keepers) != 1 ||
		s.Program != "/usr/local/bin/mlfnode join --config /etc/mlfnode/node.yaml" {
		t.Errorf("got %+v", s)
	}
}

func reload(t *testing.T, m *servicetest.Machine) {
	pid := property(m, "MainPID")
	m.Run("systemctl reload mlfnode")
	m.Until(soon, "SIGHUP has arrived", func() bool { return note(m, "reloaded") == "yes" && property(m, "StatusText") == "serving again" })
	if got := property(m, "MainPID"); got != pid || property(m, "ActiveState") != "active" {
		t.Errorf("got agent %s, want %s to go on", got, pid)
	}
}

// restarted runs a script that makes systemd restart the agent, and wants the keeper to go on.
func restarted(t *testing.T, m *servicetest.Machine, script string) {
	t.Helper()
	agent, keeper := property(m, "MainPID"), note(m, "keeper")
	m.Run("rm -f /tmp/standin/ended /tmp/standin/started")
	m.Run(strings.ReplaceAll(script, "PID", agent))
	began := time.Now()
	m.Until(soon, "another agent is active", func() bool {
		pid := property(m, "MainPID")
		return pid != agent && pid != "0" && property(m, "ActiveState") == "active"
	})
	t.Logf("active again after %v", time.Since(began).Round(time.Millisecond))
	m.Run("kill -0 " + keeper)
	if got := note(m, "keeper"); got != keeper {
		t.Errorf("got keeper %s, want %s to go on", got, keeper)
	}
}

func restart(t *testing.T, m *servicetest.Machine) {
	for _, verb := range []string{"restart", "try-restart", "restart --no-block"} {
		restarted(t, m, "systemctl "+verb+" mlfnode")
		if got := note(m, "ended"); got != "true" {
			t.Errorf("%s: got restarting %s, want true", verb, got)
		}
	}
}

// update installs over an installation: that restarts the agent.
func update(t *testing.T, m *servicetest.Machine) {
	restarted(t, m, "/root/download/standin install --seed hostA")
	if got := note(m, "ended"); got != "true" {
		t.Errorf("got restarting %s, want true", got)
	}
}

func kill(t *testing.T, m *servicetest.Machine) {
	for range 8 { // more often than systemd forgives a unit without settings of its own
		restarted(t, m, "kill -9 PID")
	}
}

func watchdog(t *testing.T, m *servicetest.Machine) {
	m.Run("mkdir -p /run/systemd/system/mlfnode.service.d && printf '[Service]\\nWatchdogSec=1\\n' > /run/systemd/system/mlfnode.service.d/fast.conf && systemctl daemon-reload && systemctl restart mlfnode")
	pid := property(m, "MainPID")
	m.Run("sleep 2.5")
	if got := property(m, "MainPID"); got != pid {
		t.Fatalf("got agent %s, want %s, which pings", got, pid)
	}
	restarted(t, m, "touch /tmp/standin/ill; while systemctl show -p MainPID --value mlfnode | grep -q ^PID$; do sleep 0.1; done; rm /tmp/standin/ill")
	if got := m.Run("journalctl -o cat -q -u mlfnode.service"); !strings.Contains(got, "Watchdog timeout") || !strings.Contains(got, "goroutine ") {
		t.Errorf("got journal without the watchdog and the goroutines:\n%s", got)
	}
	m.Run("rm -r /run/systemd/system/mlfnode.service.d && systemctl daemon-reload")
}

// signalByHand sends SIGTERM without asking systemd: nothing says that the agent will be back.
func signalByHand(t *testing.T, m *servicetest.Machine) {
	restarted(t, m, "kill -TERM PID")
	if got := note(m, "ended"); got != "false" {
		t.Errorf("got restarting %s, want false", got)
	}
}

func stop(t *testing.T, m *servicetest.Machine) {
	keeper := note(m, "keeper")
	m.Run("systemctl stop mlfnode")
	if got := property(m, "ActiveState") + " " + property(m, "Result"); got != "inactive success" {
		t.Errorf("got %s, want a clean end", got)
	}
	if got := note(m, "ended"); got != "false" {
		t.Errorf("got restarting %s, want false", got)
	}
	m.Run("kill -0 " + keeper) // a keeper is ended by its agent, not by systemd
}
