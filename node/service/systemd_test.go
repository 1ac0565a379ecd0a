package service_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/node/service"
	"mlfnode/node/service/servicetest"
)

// soon bounds operations that take milliseconds on a machine that is not busy.
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

// TestSystemService takes the service of a worker through its life on a machine with a real
// systemd.
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
	if got := m.Run("cat /etc/mlfnode/node.yaml"); !strings.Contains(got, "\nstate: \"/var/lib/mlfnode\"\n") ||
		!strings.Contains(got, "\nseed: \"hostA\"") {
		t.Errorf("got settings\n%s", got)
	}

	t.Run("verify", func(t *testing.T) { verify(t, m.For(t)) })
	t.Run("shim", func(t *testing.T) { shimStarts(t, m.For(t)) })
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
	if left := difference(before, m.Run(listing)); len(left) > 0 {
		t.Errorf("the host is not as before:\n%s", strings.Join(left, "\n"))
	}
}

// listing returns everything that an installation may leave: files, units, and processes.
const listing = `find /etc /usr /var/lib /root /home /tmp /opt -xdev -not -path '/var/lib/systemd/*' -not -path '/tmp/systemd-private-*' -printf '%y %m %p\n'
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
systemctl list-units --all --no-legend --plain --no-pager 'mlf*'
for p in /proc/[0-9]*; do readlink $p/exe; done | grep -v -e systemd -e /bin/
true`

// difference lists the lines that only one of two texts has.
func difference(before, after string) []string {
	had, has := strings.Split(before, "\n"), strings.Split(after, "\n")
	var lines []string
	for _, line := range had {
		if !slices.Contains(has, line) {
			lines = append(lines, "- "+line)
		}
	}
	for _, line := range has {
		if !slices.Contains(had, line) {
			lines = append(lines, "+ "+line)
		}
	}
	return lines
}

func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
}

// verify runs systemd's own check of the unit.
func verify(t *testing.T, m *servicetest.Machine) {
	if got := m.Run("systemd-analyze verify mlfnode.service 2>&1"); got != "" {
		t.Errorf("systemd-analyze verify says\n%s", got)
	}
	lines := strings.Split(m.Run("systemd-analyze security --no-pager mlfnode.service"), "\n")
	t.Log(lines[len(lines)-1])
	t.Log("systemd", m.Run("systemctl show --value -p Version"), "type", property(m, "Type"))
}

// shimStarts checks what a shim inherits, since trials inherit the same.
func shimStarts(t *testing.T, m *servicetest.Machine) {
	pid := note(m, "shim")
	if note(m, "scope") != "true" || pid == "" {
		t.Fatalf("got scope %q, shim %q, want a shim in a scope", note(m, "scope"), pid)
	}
	m.Until(soon, "the shim has become itself", func() bool {
		out, _ := m.Try("tr '\\0' ' ' < /proc/" + pid + "/cmdline")
		return strings.HasPrefix(out, "sleep")
	})
	if got := m.Run("cat /proc/" + pid + "/cgroup"); !strings.HasSuffix(got, "/mlfnode-shim-standin-1.scope") {
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
			t.Errorf("a shim has not got %s: %v %s", name, err, out)
		}
	}
	if got := property(m, "OOMScoreAdjust"); got != "-500" { // some sandboxes do not let systemd set it
		t.Errorf("got agent with OOMScoreAdjust %s, want -500", got)
	}
}

func status(t *testing.T, m *servicetest.Machine) {
	var s service.State
	decode(t, m.Run("/root/download/standin status"), &s)
	if !s.Installed || !s.Enabled || s.Active != "active" || s.Text != "serving" || s.PID == 0 || len(s.Shims) != 1 ||
		s.Program != "/usr/local/bin/mlfnode join --config /etc/mlfnode/node.yaml" {
		t.Errorf("got %+v", s)
	}
}

func reload(t *testing.T, m *servicetest.Machine) {
	pid := property(m, "MainPID")
	m.Run("systemctl reload mlfnode")
	m.Until(soon, "SIGHUP has arrived", func() bool {
		return note(m, "reloaded") == "yes" && property(m, "StatusText") == "serving again"
	})
	if got := property(m, "MainPID"); got != pid || property(m, "ActiveState") != "active" {
		t.Errorf("got agent %s, want %s to go on", got, pid)
	}
}

// restarted runs a script that makes systemd restart the agent, and checks that the shim keeps
// running.
func restarted(t *testing.T, m *servicetest.Machine, script string) {
	t.Helper()
	agent, shim := property(m, "MainPID"), note(m, "shim")
	m.Run("rm -f /tmp/standin/ended /tmp/standin/started")
	m.Run(strings.ReplaceAll(script, "AGENT", agent))
	began := time.Now()
	m.Until(soon, "another agent is active", func() bool {
		pid := property(m, "MainPID")
		return pid != agent && pid != "0" && property(m, "ActiveState") == "active"
	})
	t.Logf("active again after %v", time.Since(began).Round(time.Millisecond))
	m.Run("kill -0 " + shim)
	if got := note(m, "shim"); got != shim {
		t.Errorf("got shim %s, want %s to go on", got, shim)
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

// update installs over an existing installation, which restarts the agent.
func update(t *testing.T, m *servicetest.Machine) {
	restarted(t, m, "/root/download/standin install --seed hostA")
	if got := note(m, "ended"); got != "true" {
		t.Errorf("got restarting %s, want true", got)
	}
}

func kill(t *testing.T, m *servicetest.Machine) {
	for range 8 { // more often than systemd tolerates for a unit without settings of its own
		restarted(t, m, "kill -9 AGENT")
	}
}

func watchdog(t *testing.T, m *servicetest.Machine) {
	m.Run("mkdir -p /run/systemd/system/mlfnode.service.d && printf '[Service]\\nWatchdogSec=1\\n' > /run/systemd/system/mlfnode.service.d/fast.conf && systemctl daemon-reload && systemctl restart mlfnode")
	pid := property(m, "MainPID")
	m.Run("sleep 2.5")
	if got := property(m, "MainPID"); got != pid {
		t.Fatalf("got agent %s, want %s, which pings", got, pid)
	}
	restarted(t, m, "touch /tmp/standin/ill; while systemctl show -p MainPID --value mlfnode | grep -q ^AGENT$; do sleep 0.1; done; rm /tmp/standin/ill")
	if got := m.Run("journalctl -o cat -q -u mlfnode.service"); !strings.Contains(got, "Watchdog timeout") ||
		!strings.Contains(got, "goroutine ") {
		t.Errorf("got journal without the watchdog and the goroutines:\n%s", got)
	}
	m.Run("rm -r /run/systemd/system/mlfnode.service.d && systemctl daemon-reload")
}

// signalByHand sends SIGTERM without systemd's knowledge: nothing indicates that the agent will be
// back.
func signalByHand(t *testing.T, m *servicetest.Machine) {
	restarted(t, m, "kill -TERM AGENT")
	if got := note(m, "ended"); got != "false" {
		t.Errorf("got restarting %s, want false", got)
	}
}

func stop(t *testing.T, m *servicetest.Machine) {
	shim := note(m, "shim")
	m.Run("systemctl stop mlfnode")
	if got := property(m, "ActiveState") + " " + property(m, "Result"); got != "inactive success" {
		t.Errorf("got %s, want a clean end", got)
	}
	if got := note(m, "ended"); got != "false" {
		t.Errorf("got restarting %s, want false", got)
	}
	m.Run("kill -0 " + shim) // a shim is ended by its agent, not by systemd
}

// TestFailures tries installations that can't work, and one that works in the end.
func TestFailures(t *testing.T) {
	m := servicetest.Boot(t)
	standin(t, m)
	const install = "/root/download/standin install "
	if out, err := m.Try(install); err == nil ||
		!strings.Contains(out, "a worker needs to know its master: give --seed HOST") {
		t.Errorf("without a seed: got %v, %s", err, out)
	}
	m.Run("install -m 755 /root/download/standin /opt/standin")
	if out, err := m.Try("setpriv --reuid nobody --clear-groups /opt/standin install --role master"); err == nil ||
		!strings.Contains(out, "by root only") {
		t.Errorf("without rights: got %v, %s", err, out)
	}

	m.Run("mkdir /tmp/standin && touch /tmp/standin/broken")
	out, err := m.Try(install + "--role master")
	if err == nil || !strings.Contains(out, "the service was installed and does not start: it ended 3 times") ||
		!strings.Contains(out, "the store is broken, says the test") {
		t.Errorf("a service that ends: got %v, %s", err, out)
	}
	m.Run("rm /tmp/standin/broken")
	m.Until(soon, "systemd has gone on trying", func() bool { return property(m, "ActiveState") == "active" })

	m.Run("echo '# mine' >> /etc/mlfnode/node.yaml; touch /var/lib/mlfnode/lock")
	var gone service.Removal
	decode(t, m.Run("/root/download/standin uninstall"), &gone)
	if len(gone.Kept) != 2 || m.Run("ls -A /etc/mlfnode /var/lib/mlfnode") == "" {
		t.Errorf("got kept %q, want changed settings and state", gone.Kept)
	}
	decode(t, m.Run(install+"--role master --no-start && true"), new(service.Report))
	if got := property(m, "ActiveState") + " " + property(m, "UnitFileState"); got != "inactive enabled" {
		t.Errorf("--no-start: got %s", got)
	}
	decode(t, m.Run("/root/download/standin uninstall --purge"), &gone)
	if out, err := m.Try("ls /var/lib/mlfnode"); err == nil {
		t.Errorf("after a purge: got state %s", out)
	}
	decode(t, m.Run("/root/download/standin uninstall"), &gone) // it is not an error if nothing is installed
	readyWaitedFor(t, m.For(t))
	settingsThatAreThere(t, m.For(t))
}

// readyWaitedFor runs an agent that is not ready until the test lets it be.
func readyWaitedFor(t *testing.T, m *servicetest.Machine) {
	m.Run("touch /tmp/standin/slow; rm -f /tmp/standin/started")
	m.Run("(/root/download/standin install --role master >/tmp/report 2>&1; echo ended >>/tmp/report) >/dev/null 2>&1 &")
	m.Until(soon, "the agent runs", func() bool {
		return property(m, "ActiveState") == "activating" && property(m, "MainPID") != "0"
	})
	m.Run("sleep 1")
	if got := property(m, "ActiveState") + m.Run("cat /tmp/report"); got != "activating" {
		t.Errorf("got %s before the agent was ready", got)
	}
	m.Run("kill -HUP " + property(m, "MainPID"))
	m.Until(soon, "the installation ends", func() bool { return strings.Contains(m.Run("cat /tmp/report"), "ended") })
	if got := property(m, "ActiveState"); got != "active" {
		t.Errorf("got %s: %s", got, m.Run("cat /tmp/report"))
	}
	m.Run("rm /tmp/standin/slow; /root/download/standin uninstall --purge")
}

// settingsThatAreThere installs over an existing node.yaml, in a folder whose name needs quotes.
func settingsThatAreThere(t *testing.T, m *servicetest.Machine) {
	m.Run(`mkdir -p '/srv/my $HOME 100%'; echo 'cpus: 2' > '/srv/my $HOME 100%/node.yaml'`)
	var r service.Report
	decode(t, m.Run(`/root/download/standin install --seed hostB:99 --config '/srv/my $HOME 100%/node.yaml' --state-dir '/srv/a "b"'`), &r)
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "says `state: /srv/a \"b\"`") {
		t.Errorf("got notes %q, want one on how commands find the node", r.Notes)
	}
	if got, want := note(m, "started"), `join /srv/my $HOME 100%/node.yaml [] /root`; got != want {
		t.Errorf("got agent %q, want %q", got, want)
	}
	args := m.Run("tr '\\0' '|' < /proc/" + property(m, "MainPID") + "/cmdline")
	if want := `join|--config|/srv/my $HOME 100%/node.yaml|--state-dir|/srv/a "b"|--seed|hostB:99|`; !strings.HasSuffix(args, want) {
		t.Errorf("got arguments %s, want %s", args, want)
	}
	if got := m.Run("systemd-analyze verify mlfnode.service 2>&1"); got != "" {
		t.Errorf("systemd-analyze verify says\n%s", got)
	}
	m.Run("/root/download/standin uninstall --purge")
	if got := m.Run("ls /srv"); got != "my $HOME 100%" {
		t.Errorf("got %q in /srv, want the settings alone", got)
	}
}

// TestUserService installs for a user without privileges.
func TestUserService(t *testing.T) {
	m := servicetest.Boot(t)
	standin(t, m)
	m.Run("useradd -m -s /bin/sh ada && install -m 755 -D -o ada /root/download/standin /home/ada/bin/standin")
	const ada = "setpriv --reuid ada --regid ada --init-groups env -i HOME=/home/ada USER=ada PATH=/usr/bin:/bin "

	out, err := m.Try(ada + "/home/ada/bin/standin install --user --seed hostA")
	if err == nil || !strings.Contains(out, "have root run: loginctl enable-linger ada") {
		t.Errorf("without rights to linger: got %v, %s", err, out)
	}
	m.Run("loginctl enable-linger ada")
	var r service.Report
	decode(t, m.Run(ada+"/home/ada/bin/standin install --user --seed hostA"), &r)
	if !r.Started || r.Unit != "/home/ada/.config/systemd/user/mlfnode.service" ||
		r.Program != "/home/ada/bin/standin" || len(r.Notes) != 0 {
		t.Errorf("got report %+v", r)
	}
	if out := m.Run(ada + "XDG_RUNTIME_DIR=/run/user/$(id -u ada) systemd-analyze --user verify " + r.Unit +
		" 2>&1"); out != "" {
		t.Errorf("systemd-analyze verify says\n%s", out)
	}
	if got := note(m, "scope"); got != "true" {
		t.Errorf("got scope %s, want true", got)
	}
	shim := note(m, "shim")
	m.Until(soon, "the shim is in its scope", func() bool {
		return strings.HasSuffix(m.Run("cat /proc/"+shim+"/cgroup"), "/mlfnode-shim-standin-1.scope")
	})
	const systemctl = ada + "XDG_RUNTIME_DIR=/run/user/$(id -u ada) systemctl --user "
	m.Run(systemctl + "restart mlfnode")
	if got := note(m, "ended"); got != "true" {
		t.Errorf("got restarting %s, want true", got)
	}
	m.Run(systemctl + "reload mlfnode")
	m.Until(soon, "SIGHUP has arrived", func() bool { return note(m, "reloaded") == "yes" })
	var s service.State
	decode(t, m.Run(ada+"/home/ada/bin/standin status --user"), &s)
	if s.Active != "active" || !s.Linger || !s.User || len(s.Shims) != 1 {
		t.Errorf("got %+v", s)
	}
	m.Run("kill -0 " + shim)
	m.Run(ada + "/home/ada/bin/standin uninstall --user")
	if out, err := m.Try("kill -0 " + shim); err == nil {
		t.Errorf("got a shim after the uninstallation: %s", out)
	}
	if out, _ := m.Try("find /home/ada -name '*mlfnode*'"); out != "" {
		t.Errorf("got left:\n%s", out)
	}
}
