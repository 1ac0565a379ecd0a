package service

import (
	"fmt"
	"strings"

	"mlfnode/grid"
)

// The releases of systemd that introduced settings of units.
const (
	notifyReload   = 253 // Type=notify-reload: the agent reports the end of a reload
	restartBackoff = 254 // RestartSteps
)

// unit is the content of the unit's file.
type unit struct {
	manager Manager
	role    grid.NodeRole
	version int // of systemd
	command []string
	state   string
	owner   string
	created createdFiles
}

// text returns the unit's file, see systemd.service(5). Its comments explain each line to those who
// read it on a host.
func (u unit) text() string {
	var b strings.Builder
	b.WriteString(
		"# Written by `mlfnode service install`, which overwrites it. Put settings of your own into a drop-in:\n")
	fmt.Fprintf(&b, "#   systemctl %sedit %s\n", map[bool]string{true: "--user "}[u.manager.User], Unit)
	fmt.Fprintf(&b, "[Unit]\nDescription=mlfnode %s\n", u.role)
	if !u.manager.User {
		b.WriteString(
			"Wants=network-online.target\nAfter=network-online.target nss-lookup.target nvidia-persistenced.service\n")
	}
	fmt.Fprintf(&b, "RequiresMountsFor=%s\n", quote(u.state))
	b.WriteString("# Never give up: the agent of a machine whose master is down must be there when it is back.\nStartLimitIntervalSec=0\n\n")
	b.WriteString("[Service]\n" + u.startSettings() + u.stopSettings() + limits)
	if !u.manager.User {
		fmt.Fprintf(&b, "User=%s\n%s", u.owner, hardening)
	}
	target := "multi-user.target"
	if u.manager.User {
		target = "default.target"
	}
	fmt.Fprintf(&b, "\n[Install]\nWantedBy=%s\n\n%s", target, u.created.text())
	return b.String()
}

// startSettings are the lines on how the agent starts and reloads.
func (u unit) startSettings() string {
	words := make([]string, len(u.command))
	for i, w := range u.command {
		if words[i] = quote(w); i > 0 {
			words[i] = strings.ReplaceAll(words[i], "$", "$$") // otherwise the name of a variable
		}
	}
	start := "NotifyAccess=main\nExecStart=" + strings.Join(words, " ") + "\n"
	if u.version >= notifyReload {
		return "Type=notify-reload\n" + start
	}
	return "Type=notify\n" + start + "ExecReload=/bin/sh -c \"kill -HUP ${MAINPID}\"\n" // not every host has /bin/kill
}

// stopSettings are the lines on when the agent is restarted and how it stops.
func (u unit) stopSettings() string {
	text := `# A store with a long history may take its time to open.
TimeoutStartSec=300
WatchdogSec=30
Restart=always
RestartSec=100ms
`
	if u.version >= restartBackoff {
		text += "# Systemd counts restarts for as long as the machine is up; shims wait ten seconds for another agent.\n" +
			"RestartSteps=10\nRestartMaxDelaySec=2\n"
	}
	return text + `# The agent is asked to end. Trials run under shims, in scopes of their own, which the agent ends itself, or leaves alone
# when it is restarted; what else is left in the unit then is killed.
KillMode=mixed
# An agent that sees trials to their ends asks for more time.
TimeoutStopSec=120
`
}

const limits = `# Only the higher limit: the agent raises its own, and trials start with what a login shell has.
LimitNOFILE=1024:1048576
# Pinned memory for GPUs and fast networks.
LimitMEMLOCK=infinity
TasksMax=infinity
# Trials have cgroups of their own below the agent's; one that is killed for want of memory takes nothing along.
Delegate=yes
OOMPolicy=continue
`

// hardening restricts the system service. Shims, and therefore trials, inherit the restrictions, so
// they allow what trials may need: home folders, /tmp, /dev/nvidia*, loading the GPU's driver,
// rootless containers, sudo and profilers.
const hardening = `OOMScoreAdjust=-500
# Trials inherit what follows. So it takes away only what no trial has business with: clocks, swap, rebooting, raw hardware,
# the kernel's log, other processes' scheduling as real-time, foreign binaries, sniffing the network. Home folders, /tmp,
# GPUs, containers and sudo stay usable.
CapabilityBoundingSet=~CAP_SYS_TIME CAP_SYS_BOOT CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_MAC_ADMIN CAP_MAC_OVERRIDE
CapabilityBoundingSet=~CAP_LINUX_IMMUTABLE CAP_SYS_TTY_CONFIG CAP_SYS_RAWIO CAP_SYSLOG CAP_SYS_PACCT CAP_LEASE
CapabilityBoundingSet=~CAP_AUDIT_CONTROL CAP_AUDIT_READ
SystemCallFilter=~@clock @cpu-emulation @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
RestrictAddressFamilies=~AF_PACKET
RestrictRealtime=yes
LockPersonality=yes
KeyringMode=private
`

// createdFiles lists what an installation has made besides the unit. The unit's file records it in
// a section that systemd ignores, so that an uninstallation removes all of it and nothing else.
type createdFiles struct {
	Program string // the copy of the program
	Config  string // node.yaml
	Digest  string // of node.yaml as written, in hex
	Linger  string // the user for whom lingering was enabled
	State   string // the state folder
	Access  string // the file with the user's access to the cluster
}

// fields returns the fields by their names in the file.
func (m *createdFiles) fields() map[string]*string {
	return map[string]*string{"Program": &m.Program, "Config": &m.Config, "ConfigDigest": &m.Digest,
		"Linger": &m.Linger, "State": &m.State, "Access": &m.Access}
}

func (m *createdFiles) text() string {
	text := "# What the installation made, and `mlfnode service uninstall` removes.\n[X-Mlfnode]\n"
	for _, key := range []string{"Program", "Config", "ConfigDigest", "Linger", "State", "Access"} {
		if v := *m.fields()[key]; v != "" {
			text += key + "=" + v + "\n"
		}
	}
	return text
}

// readCreatedFiles reads the record in a unit's file.
func readCreatedFiles(text string) createdFiles {
	var m createdFiles
	_, section, _ := strings.Cut(text, "[X-Mlfnode]\n")
	for line := range strings.Lines(section) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if f := m.fields()[key]; f != nil {
			*f = value
		}
	}
	return m
}

// quote quotes a word of a command line or a path, see systemd.syntax(7).
func quote(word string) string {
	word = strings.ReplaceAll(word, "%", "%%") // otherwise a specifier
	if word != "" && !strings.ContainsAny(word, " \t\n\"'\\;") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(word) + `"`
}
