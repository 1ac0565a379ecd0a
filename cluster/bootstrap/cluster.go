package bootstrap

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
)

// LocalAddress is the address of the machine on which `up` runs.
const LocalAddress = "local"

// DefaultRoot is the folder on each machine without a setting, relative to the user's home.
const DefaultRoot = "mlfnode"

// Cluster says which machines make a cluster and what each of them does: the content of
// cluster.yaml. It holds no secrets.
type Cluster struct {
	Root    string `yaml:"root,omitempty"`    // the folder on each machine, relative to the user's home
	Project string `yaml:"project,omitempty"` // pushed to each machine: a folder or the name of an example
	Key     string `yaml:"key,omitempty"`     // file of the ssh key
	// HOST or HOST:PORT of a master that runs already; then no host is one
	Attach   string    `yaml:"attach,omitempty"`
	Settings yaml.Node `yaml:"settings,omitempty"` // settings of node.yaml for all nodes
	Hosts    []Host    `yaml:"hosts"`
}

// Host is one machine.
type Host struct {
	Address  string          `yaml:"address"`            // [USER@]HOST[:PORT], or local
	Name     string          `yaml:"name,omitempty"`     // of its node; the default comes from the address
	Roles    []grid.NodeRole `yaml:"roles,flow"`         // none: it gets the files, but runs no node
	Settings yaml.Node       `yaml:"settings,omitempty"` // of its node.yaml, which override those of all nodes
}

// HasRole reports whether the machine has the role.
func (h *Host) HasRole(r grid.NodeRole) bool { return slices.Contains(h.Roles, r) }

// Local reports whether it is the machine on which `up` runs.
func (h *Host) Local() bool { return h.Address == LocalAddress }

// setRole adds or removes a role.
func (h *Host) setRole(r grid.NodeRole, on bool) {
	h.Roles = slices.DeleteFunc(h.Roles, func(other grid.NodeRole) bool { return other == r })
	if on {
		h.Roles = append(h.Roles, r)
	}
	slices.Sort(h.Roles)
}

// fillDefaults fills in the folder and the names of nodes where they are missing. self names this
// machine. A machine of the last run, which is applied unless that is nil, keeps its name, whatever
// machines are added or removed.
func (c *Cluster) fillDefaults(self string, applied *Cluster) {
	c.Root = cmp.Or(c.Root, DefaultRoot)
	taken := map[string]bool{}
	for i := range c.Hosts {
		taken[c.Hosts[i].Name] = true
	}
	for i := range c.Hosts {
		if h := &c.Hosts[i]; h.Name == "" {
			if name := applied.nodeNameAt(h.Address); name != "" && !taken[name] {
				h.Name, taken[name] = name, true
			}
		}
	}
	for i := range c.Hosts {
		if h := &c.Hosts[i]; h.Name == "" {
			h.Name = uniqueName(h, self, taken)
			taken[h.Name] = true
		}
	}
}

// nodeNameAt returns the name of the node at an address, or "" if there is none. The cluster may be
// nil.
func (c *Cluster) nodeNameAt(address string) string {
	if c == nil {
		return ""
	}
	if h := c.findHost(func(h *Host) bool { return h.Address == address }); h != nil {
		return h.Name
	}
	return ""
}

// uniqueName makes a name that is not taken from the address: its first label, or all of an IP
// address.
func uniqueName(h *Host, self string, taken map[string]bool) string {
	text := self
	if !h.Local() {
		text = ""
		if t, err := shell.ParseTarget(h.Address); err == nil { // Validate reports an invalid one
			text = t.Host
		}
	}
	if _, err := netip.ParseAddr(text); err != nil {
		text, _, _ = strings.Cut(text, ".")
	}
	name := sanitizeName(text)
	for n := 2; taken[name]; n++ {
		name = fmt.Sprintf("%s-%d", sanitizeName(text), n)
	}
	return name
}

// sanitizeName replaces the characters that a node's name may not contain.
func sanitizeName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, text)
	if name == "" {
		return "node"
	}
	return name
}

// Validate returns everything that is wrong, or nil.
func (c *Cluster) Validate() error {
	var problems []error
	add := func(format string, v ...any) { problems = append(problems, fmt.Errorf(format, v...)) }
	if len(c.Hosts) == 0 {
		add("there are no hosts; name some with -a, or this machine with -m local or -w local")
	}
	if clean := path.Clean(c.Root); c.Root != "" &&
		(path.IsAbs(c.Root) || clean == "." || path.Clean("/"+c.Root) != "/"+clean) {
		add("the folder %q is not a folder below the home folder; write one such as -r mlfnode", c.Root)
	}
	masters, working := 0, 0
	names, addresses := map[string]bool{}, map[string]bool{}
	for i := range c.Hosts {
		h := &c.Hosts[i]
		if h.HasRole(grid.Master) {
			masters++
		}
		working += len(h.Roles)
		if addresses[h.Address] {
			add("the host %s is named twice", h.Address)
		}
		if addresses[h.Address] = true; h.Name != "" && names[h.Name] {
			add("two hosts have the name %q", h.Name)
		}
		names[h.Name] = true
		if _, err := shell.ParseTarget(h.Address); err != nil {
			problems = append(problems, err)
		}
		if h.Name != "" && h.Name != sanitizeName(h.Name) {
			add("%q is not a valid node name; use letters, digits, - and _", h.Name)
		}
		for _, r := range h.Roles {
			if r != grid.Master && r != grid.Worker {
				add("host %s: there is no role %q; write master or worker", h.Address, r)
			}
		}
	}
	switch {
	case len(c.Hosts) == 0:
	case masters > 1:
		add("%d hosts are master; a cluster has one", masters)
	case masters == 1 && c.Attach != "":
		add("there is a master among the hosts, and -b attaches to another one; choose one of them")
	case masters == 0 && c.Attach == "":
		add("no host is the master; choose one with -m local or -m N, or attach to a running one with -b HOST")
	case working == 0:
		add("no host runs anything; choose workers with -w")
	}
	return errors.Join(problems...)
}
