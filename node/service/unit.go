package service

import (
	"fmt"
	"strings"
)

// The releases of systemd from which on a unit can say something.
const (
	notifyReload   = 253 // Type=notify-reload: a reload is over when the agent says so
	restartBackoff = 254 // RestartSteps
)

// unit is what a unit's file is made from.
type unit struct {
	home    Home
	role    Role
	version int // of systemd
	command []string
	state   string
	owner   string
	marks   marks
}

// text is the unit's file, systemd.service(5). The why of each line stands in it, for whoever opens it on a host.
func (u unit) text() string {
	var b strings.Builder
	b.WriteString("# Written by `mlfnode service install`, which overwrites it. Put settings of your own into a drop-in:\n")
	fmt.Fprintf(&b, "#   systemctl %sedit %s\n", map[bool]string{true: "--user "}[u.home.User], Unit)
	fmt.Fprintf(&b, "[Unit]\nDescription=mlfnode %s\n", u.role)
	if !u.home.User {
		b.WriteString("Wants=network-online.target\nAfter=network-online.target nss-lookup.target nvidia-persistenced.service\n")
	}
	fmt.Fprintf(&b, "RequiresMountsFor=%s\n", quote(u.state))
	b.WriteString("# Never give up: the agent of a machine whose master is down must be there when it is back.\nStartLimitIntervalSec=0\n\n")
	b.WriteString("[Service]\n" + u.kind() + u.life() + limits)
	if !u.home.User {
		fmt.Fprintf(&b, "User=%s\n%s", u.owner, hardening)
	}
	target := "multi-user.target"
	if u.home.User {
		target = "default.target"
	}
	fmt.Fprintf(&b, "\n[Install]\nWantedBy=%s\n\n%s", target, u.marks.text())
	return b.String()
}

// kind says how the agent starts and reloads.
func (u unit) kind() string {
	words := make([]string, len(u.command))
	for i, w := range u.command {
		if words[i] = quote(w); i > 0 {
			words[i] = strings.ReplaceAll(words[i], "$", "$$") // else the name of a variable
		}
	}
	start := "NotifyAccess=main\nExecStart=" + strings.Join(words, " ") + "\n"
	if u.version >= notifyReload {
		return "Type=notify-reload\n" + start
	}
	return "Type=notify\n" + start + "ExecReload=/bin/sh -c \"kill -HUP ${MAINPID}\"\n" // not every host has /bin/kill
}

// life says when the agent is restarted and how it ends.
func (u unit) life() string {
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

// hardening is what a service of the system gives up. Shims, and so trials, inherit it: it leaves alone what trials may
// need, which is home folders, /tmp, /dev/nvidia*, loading the GPU's driver, containers without root, sudo and profilers.
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

// marks are what an installation has made besides the unit. They stand in the unit's file, in a section that systemd leaves
// alone, so that an uninstallation removes all of it and nothing else.
type marks struct {
	Program string // the copy of the program
	Config  string // node.yaml
	Digest  string // of node.yaml as it was written, in hex
	Linger  string // the user whose lingering was enabled
	State   string // the state folder
	Access  string // the file with the user's access to the cluster
}

// fields names the marks as they stand in the file.
func (m *marks) fields() map[string]*string {
	return map[string]*string{"Program": &m.Program, "Config": &m.Config, "ConfigDigest": &m.Digest, "Linger": &m.Linger, "State": &m.State, "Access": &m.Access}
}

func (m *marks) text() string {
	text := "# What the installation made, and `mlfnode service uninstall` removes.\n[X-Mlfnode]\n"
	for _, key := range []string{"Program", "Config", "ConfigDigest", "Linger", "State", "Access"} {
		if v := *m.fields()[key]; v != "" {
			text += key + "=" + v + "\n"
		}
	}
	return text
}

// readMarks reads the marks in a unit's file.
func readMarks(text string) marks {
	var m marks
	_, section, _ := strings.Cut(text, "[X-Mlfnode]\n")
	for line := range strings.Lines(section) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if f := m.fields()[key]; f != nil {
			*f = value
		}
	}
	return m
}

// quote writes a word of a command line or a path as systemd.syntax(7) wants it.
func quote(word string) string {
	word = strings.ReplaceAll(word, "%", "%%") // else a specifier
	if word != "" && !strings.ContainsAny(word, " \t\n\"'\\;") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(word) + `"`
}
