package main

import (
	"strings"
	"testing"

	"mlfnode/node/service/servicetest"
)

// TestUpUnderSystemd brings up a cluster of one on a real Debian, as root and as a user, restarts
// it under running trials, and takes it down.
func TestUpUnderSystemd(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	program := buildRelease(t, "1.0.0")
	for _, as := range []struct{ kind, user string }{{"system", "root"}, {"user", "ada"}} {
		t.Run(as.kind, func(t *testing.T) {
			m := servicetest.Boot(t)
			m.Copy(program, "/usr/bin/mlfnode")
			if as.user != "root" {
				m.Run("useradd -m -s /bin/bash " + as.user)
			}
			do := func(command string) string {
				return m.Run("su - " + as.user + " -c '" + command +
					"' 2>/tmp/complaint || { cat /tmp/complaint; false; }")
			}
			if out := do("mlfnode up -r ML -m local -w local"); !strings.Contains(out, as.kind) {
				t.Errorf("the node is not a service of the %s:\n%s", as.kind, out)
			}
			if out := do("mlfnode up -f"); !strings.Contains(out, "unchanged") {
				t.Errorf("a second up changed something:\n%s", out)
			}
			do("mlfnode sweep --detach --set i=1 -- sh -c \"sleep 8\"")
			m.Until(soon, "the trial runs", func() bool {
				return strings.Contains(do("mlfnode trials last --state running"), "running")
			})
			if out := do("mlfnode restart"); !strings.Contains(out, "restarted") {
				t.Errorf("got\n%s\nwant that it was restarted", out)
			}
			m.Until(soon, "the trial ends", func() bool {
				return strings.Contains(do("mlfnode trials last"), "succeeded")
			})
			if out := do("mlfnode trials last --json"); !strings.Contains(strings.ReplaceAll(out, " ", ""),
				`"attempts":1`) {
				t.Errorf("the trial did not survive:\n%s", out)
			}
			do("mlfnode down --purge --yes")
			left := m.Run(
				"ls -l /proc/[0-9]*/exe 2>/dev/null | grep ML/bin/mlfnode; find / -xdev -name \"mlfnode*\" -not -path \"/proc/*\" -not -path \"/tmp/*\" -not -path /usr/bin/mlfnode; ls /var/lib/systemd/linger; ls -d ~" + as.user + "/ML 2>/dev/null; true")
			if left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// TestRenamedUnderSystemd gives a worker that systemd runs another name, for which it joins again.
func TestRenamedUnderSystemd(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	m := servicetest.Boot(t)
	m.Copy(buildRelease(t, "1.0.0"), "/usr/bin/mlfnode")
	m.Run("mkdir /srv/m; printf 'state: /srv/m\nnode: m\nworker: false\nbind: 127.0.0.2\nadvertise: 127.0.0.2\n' >/srv/m.yaml")
	m.Run("systemd-run -q --unit m mlfnode master --config /srv/m.yaml")
	m.Until(soon, "the master is there", func() bool {
		return m.Run("mlfnode members --config /srv/m.yaml 2>/dev/null || true") != ""
	})
	for _, name := range []string{"one", "another"} {
		m.Run(
			"printf 'root: ML\nattach: 127.0.0.2\nsettings: {bind: 127.0.0.3, advertise: 127.0.0.3}\nhosts: [{address: local, name: " + name + ", roles: [worker]}]\n' >/srv/c.yaml")
		out := m.Run("mlfnode token --json --config /srv/m.yaml | sed -n 's/.*\"token\": *\"\\([^\"]*\\)\".*/\\1/p' >/srv/token; mlfnode up -f /srv/c.yaml --token-file /srv/token 2>&1")
		if !strings.Contains(out, "joined, started") {
			t.Errorf("%s did not join:\n%s", name, out)
		}
		m.Until(soon, "the master to see "+name, func() bool {
			return strings.Contains(m.Run("mlfnode members --config /srv/m.yaml"), name+" ")
		})
	}
	m.Run("mlfnode down -f /srv/c.yaml --purge --yes")
}
