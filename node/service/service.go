// Package service makes a node a service of its host: it installs, removes and describes the systemd unit mlfnode.service, and
// is the node's side of the contract with systemd.
//
// There are two kinds of installation. The system service belongs to root, starts with the machine and keeps its state in
// /var/lib/mlfnode; the user service belongs to one person and needs that person to linger, else it ends at logout. Both run
// the agent in the foreground with Type=notify: the agent says when it is ready (Notifier), pings a watchdog while it is
// healthy, and is restarted whatever way it ends.
//
// The programs of trials must outlive the agent. They run under shims, which are started as scopes of their own (Scope):
// units beside mlfnode.service, which a restart of the agent leaves alone. When the agent is told to end, Restarting says
// whether it will be back in a moment, in which case shims go on, or not, in which case it ends them itself.
package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
)

// Unit is the name of the unit in systemd, of the system and of a user alike.
const Unit = "mlfnode.service"

// shimScopes and formerShimScopes are the patterns of the scopes that shims run in: those of this
// version and those of earlier versions, which called shims keepers.
const (
	shimScopes       = "mlfnode-shim-*.scope"
	formerShimScopes = "mlfnode-keeper-*.scope"
)

// Role is what a node is in its cluster.
type Role string

// The roles.
const (
	Master Role = "master"
	Worker Role = "worker"
)

// command is the command of mlfnode that runs a node of the role.
func (r Role) command() string {
	if r == Master {
		return "master"
	}
	return "join"
}

// ErrNoSystemd is returned by Install, Uninstall and Status on a host that was not started by systemd.
var ErrNoSystemd = errors.New("this host is not run by systemd")

// Home is where the services of one owner live: those of the system or those of the calling user.
type Home struct {
	User bool // of the calling user
	host string
}

// place gives the path of a file on the host. The root of the host is another folder in tests only.
func (h Home) place(path string) string { return filepath.Join("/", h.host, path) }

// booted refuses hosts without systemd, as sd_booted(3) does.
func (h Home) booted() error {
	if info, err := os.Stat(h.place("/run/systemd/system")); err != nil || !info.IsDir() {
		return ErrNoSystemd
	}
	return nil
}

// layout is where the files of a service lie.
type layout struct {
	unit    string // the unit's file
	config  string // node.yaml
	state   string // the state folder
	program string // where a program is copied to that lies in no stable place
	home    string // of the user that the service runs as
	owner   string // that user's name
}

func (h Home) layout() (layout, error) {
	u, err := user.Current()
	if err != nil {
		return layout{}, fmt.Errorf("find who runs this: %w", err)
	}
	if !h.User {
		return layout{
			unit: h.place("/etc/systemd/system/" + Unit), config: h.place("/etc/mlfnode/node.yaml"), state: "/var/lib/mlfnode",
			program: h.place("/usr/local/bin/mlfnode"), home: u.HomeDir, owner: u.Username,
		}, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return layout{}, fmt.Errorf("find the home folder: %w", err)
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return layout{}, fmt.Errorf("find the folder for settings: %w", err)
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		state = filepath.Join(home, ".local", "state")
	}
	return layout{
		unit: filepath.Join(config, "systemd", "user", Unit), config: filepath.Join(config, "mlfnode", "node.yaml"),
		state: filepath.Join(state, "mlfnode"), program: filepath.Join(home, ".local", "bin", "mlfnode"), home: home, owner: u.Username,
	}, nil
}

// stable reports whether a program may be run from where it lies: it stays there, and for a service of the system nobody but
// root can change it.
func (h Home) stable(program string, l layout) bool {
	folders := []string{"/usr/", "/opt/", "/bin/", "/sbin/"}
	if h.User {
		folders = append(folders, filepath.Dir(l.program)+"/", filepath.Join(l.home, "bin")+"/")
	}
	for _, folder := range folders {
		if strings.HasPrefix(program, folder) {
			return true
		}
	}
	return false
}

// WithoutSystemd says what to do on a host without systemd: the lines for a shell and for the host's own supervisor.
func WithoutSystemd(role Role, args ...string) string {
	line := strings.Join(append([]string{"mlfnode", role.command()}, args...), " ")
	return fmt.Sprintf(`start it by hand, so that it outlives this terminal:
    setsid nohup %s >>mlfnode.log 2>&1 </dev/null &
  or give the host's own supervisor (runit, s6, OpenRC, a container's entry point) this line, to be restarted whenever it ends:
    exec %[1]s
  it ends in good order on SIGTERM and reads node.yaml again on SIGHUP`, line)
}

// allowed refuses to change the services of the system without root.
func (h Home) allowed() error {
	if !h.User && os.Geteuid() != 0 {
		return fmt.Errorf("a service of the system is changed by root only: %w", os.ErrPermission)
	}
	return nil
}

// ready is what every action on services asks first.
func (h Home) ready(ctx context.Context) error {
	if err := h.booted(); err != nil {
		return err
	}
	if _, err := h.systemctl(ctx, "show", "-p", "Version", "--value"); err != nil {
		if h.User {
			return fmt.Errorf("reach the systemd of this user: %w; log in again, or have root run: loginctl enable-linger %s", err, userName())
		}
		return fmt.Errorf("reach systemd: %w", err)
	}
	return nil
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "$USER"
}
