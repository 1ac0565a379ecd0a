package service

import (
	"context"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"mlfnode/node/cgroups"
)

// restartQueryTimeout bounds the query for a restart in progress, which is made while the agent is
// being stopped.
const restartQueryTimeout = 2 * time.Second

// serviceOf returns the innermost systemd service that contains a process with this
// /proc/PID/cgroup. A process in a scope, such as a login session or a container, is in none.
func serviceOf(text string) (unit string, user bool) {
	for _, m := range cgroups.Parse(text) {
		if !m.Unified() && !slices.Contains(m.Controllers, "name=systemd") {
			continue
		}
		for dir := m.Path; dir != "/" && dir != "."; dir = path.Dir(dir) {
			switch name := path.Base(dir); path.Ext(name) {
			case ".service":
				return name, strings.Contains(path.Dir(dir)+"/", "/user@")
			case ".scope":
				return "", false
			}
		}
	}
	return "", false
}

func ownUnit() (unit string, user bool) {
	if (Manager{}).checkSystemd() != nil {
		return "", false
	}
	return serviceOf(cgroups.Own())
}

// Restarting reports whether systemd is restarting the service of this process, rather than
// stopping it. Call it when SIGTERM arrives. It returns false if systemd does not answer within two
// seconds.
//
// While systemd waits for a service to end, the job of `systemctl restart`, and of try-restart and
// reload-or-restart, is of type restart and running; it becomes a start job only after the service
// has ended. The job of `systemctl stop` and of a machine's shutdown is of type stop. A signal that
// a user sent comes without a job.
func Restarting(ctx context.Context) bool {
	unit, user := ownUnit()
	if unit == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, restartQueryTimeout)
	defer cancel()
	out, err := Manager{User: user}.systemctl(ctx, "list-jobs", "--no-legend", "--full", unit)
	return err == nil && hasRestartJob(out, unit)
}

// hasRestartJob reports whether there is a line like `138 mlfnode.service restart running` for the
// unit.
func hasRestartJob(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == unit {
			return f[2] == "restart" || f[2] == "try-restart"
		}
	}
	return false
}

// resetInherited is the shell script that execs the shim without what it must not inherit from the
// agent: the protection from the OOM killer, which trials would share, and the notification socket.
const resetInherited = `echo 0 2>/dev/null >/proc/self/oom_score_adj; unset NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC; exec "$@"`

// Scope returns the command line to prepend to a shim's, so that the shim runs in a scope of its
// own beside the agent's service and survives a restart and a stop of the agent. PID, output and
// environment stay the same. ok is false if this process is in no service or may not create scopes:
// the shim then runs in a session of its own.
//
// A scope leaves the agent's cgroup, but trials inherit the resource limits, capabilities and
// system call filter of the agent's unit. The unit is therefore no stricter than trials can bear.
func Scope(name string) (wrap []string, ok bool) {
	unit, user := ownUnit()
	if unit == "" || (!user && os.Geteuid() != 0) {
		return nil, false
	}
	program, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil, false
	}
	return scopeCommand(program, name, user), true
}

func scopeCommand(program, name string, user bool) []string {
	wrap := []string{program}
	if user {
		wrap = append(wrap, "--user")
	}
	unit := strings.Replace(shimScopes, "*", unitName(name), 1)
	return append(wrap, "--scope", "--quiet", "--collect", "--unit="+unit, "-p", "Delegate=yes",
		"--description=trials of mlfnode", "--", "/bin/sh", "-c", resetInherited, "sh")
}

// unitName replaces the characters that a unit's name may not have.
func unitName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') ||
			(r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
}
