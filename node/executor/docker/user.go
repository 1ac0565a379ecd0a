package docker

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
)

// hostUser is the user of this machine as which a container's processes run.
type hostUser struct {
	User   string // uid:gid inside
	Groups []string
	Userns container.UsernsMode
}

// agentUser makes the files that a container writes belong to the agent's user, who can then read
// and remove them. In a rootless engine that user is the container's root. A rootful engine that
// remaps users does not for this container.
func agentUser(info *system.Info) hostUser {
	if isRootless(info) {
		return hostUser{User: "0:0"}
	}
	u := hostUser{User: strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())}
	groups, _ := os.Getgroups() // without them the user has fewer rights, at worst
	for _, g := range groups {
		if g != os.Getgid() {
			u.Groups = append(u.Groups, strconv.Itoa(g))
		}
	}
	if hasSecurity(info, "userns") {
		u.Userns = "host"
	}
	return u
}

// isRootless reports whether the engine runs without root rights.
func isRootless(info *system.Info) bool { return hasSecurity(info, "rootless") }

// hasSecurity reports whether there is an entry like name=seccomp,profile=default.
func hasSecurity(info *system.Info, name string) bool {
	return slices.ContainsFunc(info.SecurityOptions, func(o string) bool {
		return slices.Contains(strings.Split(o, ","), "name="+name)
	})
}
