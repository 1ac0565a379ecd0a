package bootstrap

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// Flags are the flags of `mlfnode up` that describe a cluster. A flag that was not given is nil.
type Flags struct {
	Hosts   *string // -a: [USER@]HOST[:PORT],…
	Key     *string // -i
	Root    *string // -r
	Project *string // -d
	Master  *string // -m: local or N
	Workers *string // -w: local,N,…
	Attach  *string // -b
}

// Apply applies the flags to c: each overrides what the file says about the same thing.
func (l *Flags) Apply(c *Cluster) error {
	for to, from := range map[*string]*string{&c.Key: l.Key, &c.Root: l.Root, &c.Project: l.Project} {
		if from != nil {
			*to = *from
		}
	}
	if l.Hosts != nil {
		if err := c.setHosts(*l.Hosts); err != nil {
			return err
		}
	}
	if l.Attach != nil {
		c.Attach = *l.Attach
		c.clearRole(grid.Master)
	}
	if l.Master != nil {
		if l.Attach == nil {
			c.Attach = ""
		}
		if err := c.assignRole(grid.Master, "-m", []string{*l.Master}); err != nil {
			return err
		}
	}
	if l.Workers != nil {
		if err := c.assignRole(grid.Worker, "-w", strings.Split(*l.Workers, ",")); err != nil {
			return err
		}
	}
	// This machine is removed if it no longer has a role; others without a role are still checked.
	c.Hosts = slices.DeleteFunc(c.Hosts, func(h Host) bool { return h.Local() && len(h.Roles) == 0 })
	return nil
}

// setHosts replaces the hosts by the list of -a. Hosts that the file already has keep their other
// settings, and this machine stays.
func (c *Cluster) setHosts(list string) error {
	var hosts []Host
	for _, address := range strings.Split(list, ",") {
		address = strings.TrimSpace(address)
		switch {
		case address == "":
			return fmt.Errorf("-a %s: the list has an empty entry; write HOST,HOST", list)
		case address == LocalAddress:
			return fmt.Errorf("-a lists other machines; this one takes part with -m local or -w local")
		}
		h := Host{Address: address}
		if i := slices.IndexFunc(c.Hosts, func(h Host) bool { return h.Address == address }); i >= 0 {
			h = c.Hosts[i]
		}
		hosts = append(hosts, h)
	}
	if i := slices.IndexFunc(c.Hosts, func(h Host) bool { return h.Local() }); i >= 0 {
		hosts = append(hosts, c.Hosts[i])
	}
	c.Hosts = hosts
	return nil
}

func (c *Cluster) clearRole(r grid.NodeRole) {
	for i := range c.Hosts {
		c.Hosts[i].setRole(r, false)
	}
}

// assignRole gives the role to the hosts with these numbers in -a, from 1, and takes it from all
// others. `local` is this machine, which is added if necessary.
func (c *Cluster) assignRole(r grid.NodeRole, flag string, numbers []string) error {
	c.clearRole(r)
	for _, text := range numbers {
		var others []*Host
		i := slices.IndexFunc(c.Hosts, func(h Host) bool { return h.Local() })
		for k := range c.Hosts {
			if k != i {
				others = append(others, &c.Hosts[k])
			}
		}
		text = strings.TrimSpace(text)
		n, err := strconv.Atoi(text)
		switch {
		case text == LocalAddress && i < 0:
			c.Hosts = append(c.Hosts, Host{Address: LocalAddress, Roles: []grid.NodeRole{r}})
		case text == LocalAddress:
			c.Hosts[i].setRole(r, true)
		case err != nil:
			return fmt.Errorf("%s takes `local` or the number of a host in -a, not %q", flag, text)
		case n < 1 || n > len(others):
			return fmt.Errorf("%s %d: there is no host with that number; -a has %d, and the first is 1",
				flag, n, len(others))
		default:
			others[n-1].setRole(r, true)
		}
	}
	return nil
}
