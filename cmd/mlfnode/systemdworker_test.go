package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/service/servicetest"
)

// tokenForm is what `mlfnode token` prints among the text that explains it.
var tokenForm = regexp.MustCompile(`mlf1\.[0-9a-f]{64}\.[^\s'".]+\.[^\s'"]+`)

// TestWorkerService takes the service of a worker through its life while trials run there: first
// that of another machine than the master's, then that of a person on the master's machine.
func TestWorkerService(t *testing.T) {
	if testing.Short() {
		t.Skip("machines take their time, and their program is not the one that -race looks at")
	}
	older, newer := buildRelease(t, "1.4.0"), buildRelease(t, "1.5.0")
	m, w := servicetest.Boot(t), servicetest.Boot(t)
	servicetest.Link(t, m, w)
	m.Run("hostname hostA; mkdir -p /etc/mlfnode && printf 'state: /var/lib/mlfnode\nworker: false\nadvertise: 10.88.0.1\n' > /etc/mlfnode/node.yaml && chmod 600 /etc/mlfnode/node.yaml")
	w.Run("hostname hostB; mkdir -p /root/download /root/.config")
	before := w.Run(everything)
	masterOn(t, m, newer)
	joinAs(t, m, w, older)
	members(t, m, map[string]string{"hostA": "1.5.0", "hostB": "1.4.0"})

	survives := func(name string, of *servicetest.Machine, script string) {
		t.Run(name, func(t *testing.T) {
			p := &post{Machine: m.For(t), t: t}
			p.Machine = m.For(t)
			w.Run("rm -rf /tmp/ran")
			p.submit(2, 2)
			replaced(t, of.For(t), script)
			p.ended(1, w.For(t))
		})
	}
	survives("restart", w, "systemctl restart mlfnode")
	survives("kill", w, "kill -9 AGENT")
	survives("restart of the master", m, "systemctl restart mlfnode")
	survives("kill of the master", m, "kill -9 AGENT")
	w.Copy(newer, aside+"mlfnode")
	survives("upgrade", w, aside+"mlfnode service install >&2")
	members(t, m, map[string]string{"hostA": "1.5.0", "hostB": "1.5.0"})
	t.Run("reload without a master", func(t *testing.T) { reloadAlone(t, m.For(t), w.For(t)) })
	t.Run("stop", func(t *testing.T) { stopWorker(t, m.For(t), w.For(t)) })
	t.Log(w.Run("mlfnode service uninstall --purge && rm -rf /root/download/* /tmp/ran"))
	nothingLeft(t, w)
	if after := w.Run(everything); after != before {
		t.Errorf("the host is not as before; it was\n%s\nand is\n%s", before, after)
	}
	t.Run("user", func(t *testing.T) { userWorker(t, m.For(t), older) })
}

// joinAs installs a worker with a program, and waits until it takes trials.
func joinAs(t *testing.T, m, w *servicetest.Machine, program string) {
	t.Helper()
	w.Copy(program, aside+"mlfnode")
	token := tokenForm.FindString(m.Run("mlfnode token --uses 1"))
	began := time.Now()
	out := w.Run(fmt.Sprintf("MLF_CLUSTER_TOKEN=%s %smlfnode service install --role worker --seed 10.88.0.1", token,
		aside))
	t.Logf("a worker is ready %v after its installation began", time.Since(began).Round(time.Millisecond))
	if !strings.Contains(out, "the service is active") {
		t.Fatalf("install: got\n%s", out)
	}
	if _, secret, _ := strings.Cut(token,
		"."); strings.Contains(w.Run("cat /etc/mlfnode/node.yaml /etc/systemd/system/mlfnode.service; journalctl -q"),
		secret) {
		t.Error("the token is in a file or in the journal")
	}
	if got := w.Run("tr '\\0' '\\n' < /proc/" + agent(w) + "/environ"); strings.Contains(got, token) {
		t.Error("the token is in the environment of the service")
	}
}

// members wants these nodes, alive, with these versions, as each of them sees it.
func members(t *testing.T, m *servicetest.Machine, want map[string]string) {
	t.Helper()
	m.Until(soon, fmt.Sprintf("the members are %v", want), func() bool {
		var all []api.Member
		read(t, m.Run("mlfnode members --json"), &all)
		n := 0
		for _, v := range all {
			if v.State == "alive" && want[string(v.Node)] == v.Version {
				n++
			}
		}
		return n == len(want)
	})
	t.Logf("\n%s", m.Run("mlfnode members"))
}

// reloadAlone changes node.yaml of a worker that has yet to find its master.
func reloadAlone(t *testing.T, m, w *servicetest.Machine) {
	m.Run("systemctl stop mlfnode")
	w.Run("systemctl restart mlfnode && printf 'cpus: 1\n' >> /etc/mlfnode/node.yaml && systemctl reload mlfnode")
	w.Until(soon, "the worker has read its settings", func() bool {
		return strings.Contains(w.Run("mlfnode service status"), "was reloaded")
	})
	m.Run("systemctl start mlfnode")
	w.Run("rm -rf /tmp/ran")
	p := &post{Machine: m, t: t}
	p.submit(3, 1)
	if n := runs(w); n != 1 {
		t.Errorf("%d trials run on the one processor of the settings, want 1", n)
	}
	m.Run("mlfnode cancel " + p.sweep)
	nothingRuns(t, w)
	w.Run("sed -i '/^cpus/d' /etc/mlfnode/node.yaml && systemctl reload mlfnode")
}

// stopWorker stops the only worker: its trials stop immediately and wait. Started again, it brings
// them to their end.
func stopWorker(t *testing.T, m, w *servicetest.Machine) {
	p := &post{Machine: m, t: t}
	w.Run("rm -rf /tmp/ran")
	p.submit(2, 2)
	began := time.Now()
	w.Run("systemctl stop mlfnode")
	t.Logf("stopped after %v", time.Since(began).Round(time.Millisecond))
	nothingLeft(t, w)
	m.Until(soon, "members say that it has left", func() bool {
		var all []api.Member
		read(t, m.Run("mlfnode members --json"), &all)
		return slices.ContainsFunc(all, func(v api.Member) bool { return v.Node == "hostB" && v.State == "left" })
	})
	m.Until(soon, "no trial is said to run", func() bool {
		return !slices.ContainsFunc(p.trials(), func(v api.Trial) bool { return v.State == "running" })
	})
	later := m.Run("mlfnode sweep --detach -- true 2>/dev/null") // nobody is there to run it, and it waits
	w.Run("systemctl start mlfnode")
	p.ended(2, w)
	m.Until(soon, "the sweep that has waited ends", func() bool {
		var all []api.Trial
		read(t, m.Run("mlfnode trials --json "+later), &all)
		return len(all) == 1 && all[0].State == "succeeded"
	})
	if out, err := m.Try("mlfnode drain hostB && mlfnode sweep --detach -- true"); err != nil {
		t.Errorf("a sweep while the only worker is drained: got %v, %s", err, out)
	}
	m.Run("mlfnode undrain hostB")
}

// userWorker has a person without rights run a worker beside the master.
func userWorker(t *testing.T, m *servicetest.Machine, program string) {
	m.Run("useradd -m -s /bin/sh ada && loginctl enable-linger ada && rm -rf /tmp/ran")
	m.Copy(program, "/home/ada/bin/mlfnode")
	const ada = "setpriv --reuid ada --regid ada --init-groups env -i HOME=/home/ada USER=ada PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/$(id -u ada) "
	if out, err := m.Try(ada + "/home/ada/bin/mlfnode sweeps"); err != nil ||
		!strings.Contains(out, "there are no sweeps yet") {
		t.Errorf("somebody who may not read the settings of the system's node: got %v, %s", err, out)
	}
	m.Run("mkdir -p /home/ada/.config/mlfnode && printf 'node: ada\nports: {gossip: 7522}\n' > /home/ada/.config/mlfnode/node.yaml && chown -R ada: /home/ada")
	token := tokenForm.FindString(m.Run("mlfnode token"))
	t.Log(m.Run(ada + "MLF_CLUSTER_TOKEN=" + token + " /home/ada/bin/mlfnode service install --user --seed 127.0.0.1"))

	p := &post{Machine: m, t: t}
	p.submit(2, 2)
	const pid = ada + "systemctl --user show mlfnode --value -p MainPID"
	for _, script := range []string{"systemctl --user restart mlfnode", "systemctl --user kill -s KILL mlfnode"} {
		old := m.Run(pid)
		m.Run(ada + script)
		m.Until(soon, "another agent runs", func() bool { now := m.Run(pid); return now != old && now != "0" })
	}
	p.ended(1, m)
	t.Logf("\n%s", m.Run("mlfnode members"))
	m.Run(ada + "/home/ada/bin/mlfnode service uninstall --user --purge")
	const left = "find /home/ada -path '*mlfnode*' -not -path '/home/ada/bin/*'; for p in /proc/[0-9]*; do readlink $p/exe; done | grep /home/ada; true"
	// which was hers before
	if out := m.Run(left); out != "/home/ada/.config/mlfnode\n/home/ada/.config/mlfnode/node.yaml" {
		t.Errorf("got left:\n%s", out)
	}
}

// TestServiceOfAUser has root install a service that runs as a user, from a place where the user
// can't read: trials run as them and survive a restart, and uninstall leaves nothing.
func TestServiceOfAUser(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	m := servicetest.Boot(t)
	m.Run("mkdir -p " + aside + " && useradd -m -s /bin/sh ada")
	m.Copy(buildRelease(t, "1.0.0"), aside+"mlfnode")
	if out, err := m.Try(aside + "mlfnode service install --role master --run-as nobody-is-this 2>&1"); err == nil ||
		!strings.Contains(out, `there is no user "nobody-is-this"`) {
		t.Errorf("for nobody: got %v, %s", err, out)
	}
	m.Run("useradd -M -d /nowhere homeless")
	if out, err := m.Try(aside + "mlfnode service install --role master --run-as homeless 2>&1"); err == nil ||
		!strings.Contains(out, "the user homeless has no home folder") {
		t.Errorf("without a home folder: got %v, %s", err, out)
	}
	if out := m.Run(aside +
		"mlfnode service status --run-as ada"); out != "no service is installed; install one with: mlfnode service install --run-as ada" {
		t.Errorf("status of none: got\n%s", out)
	}
	if out := m.Run(aside + "mlfnode service uninstall --run-as ada"); out != "no service is installed" {
		t.Errorf("uninstall of none: got\n%s", out)
	}
	if out := m.Run("ls /var/lib/systemd/linger 2>/dev/null || true"); out != "" {
		t.Errorf("services of these run without a login although none was installed: %s", out)
	}
	m.Run(aside + "mlfnode service install --role master --run-as ada 2>&1")
	const ada = "su - ada -c '/home/ada/.local/bin/mlfnode "
	m.Run(ada + "sweep --detach --set i=1 -- sh -c \"id -un; sleep 8; id -un\"' 2>&1")
	m.Until(soon, "the trial runs", func() bool { return strings.Contains(m.Run(ada+"logs last'"), "ada") })
	m.Run("su - ada -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user restart mlfnode'")
	m.Until(soon, "the trial ends", func() bool { return strings.Contains(m.Run(ada+"trials last'"), "succeeded") })
	if out := m.Run(ada + "trials last --json'"); !strings.Contains(strings.ReplaceAll(out, " ", ""), `"attempts":1`) {
		t.Errorf("the trial did not survive:\n%s", out)
	}
	if out := m.Run(ada + "logs --stdout last'"); strings.Count(out, "ada") != 2 {
		t.Errorf("the trial ran as:\n%s", out)
	}
	if out := m.Run(aside + "mlfnode service status --run-as ada"); !strings.Contains(out, "active") {
		t.Errorf("status: got\n%s", out)
	}
	m.Run(aside + "mlfnode service uninstall --purge --run-as ada 2>&1")
	if left := m.Run(
		"find /home/ada /etc/systemd /etc/mlfnode /var/lib/mlfnode /usr/local /tmp -xdev 2>/dev/null | grep mlf || true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
}
