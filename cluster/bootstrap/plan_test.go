package bootstrap

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
)

// problems are the causes of the hosts that have failed, by name.
func problems(all []Outcome) map[string]string {
	said := map[string]string{}
	for _, o := range all {
		if o.Problem != nil {
			said[o.Host] = o.Problem.Cause + "\n" + o.Problem.Cure
		}
	}
	return said
}

// builtIn has the fakes have this program already, so that nothing is shipped.
func (f *fakes) builtIn(t *testing.T, o *Options) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := o.Builds.open(self)
	if err != nil {
		t.Fatal(err)
	}
	f.digest = b.digest
}

// TestSwappedRoles gives each of two machines the role of the other.
func TestSwappedRoles(t *testing.T) {
	for _, dry := range []bool{true, false} {
		f := newFakes()
		f.roles["a"], f.roles["b"] = "worker", "master"
		o := f.options()
		f.builtIn(t, &o)
		o.DryRun = dry
		all := Up(t.Context(), o)
		said := problems(all)
		if len(said) != 2 || !strings.Contains(said["a"],
			"is the worker a of its cluster, but cluster.yaml makes it a master") ||
			!strings.Contains(said["b"],
				"is the master b of its cluster, but cluster.yaml makes it a worker\nleave it the master") {
			t.Errorf("got %q", said)
		}
		if strings.Contains(said["b"], "purge") {
			t.Errorf("the hint deletes results: %s", said["b"])
		}
		if started := f.did(protocol.ActionStart); len(started) > 0 || len(f.did(protocol.ActionStop)) > 0 {
			t.Errorf("dry run %v: %q were started", dry, started)
		}
		if !slices.Contains(all[2].Notes, "nothing was changed, because not all machines can take their roles") {
			t.Errorf("got notes %q of the third host", all[2].Notes)
		}
	}
}

// TestOtherClustersMachine has a worker of another cluster among the hosts.
func TestOtherClustersMachine(t *testing.T) {
	const mine, other = "11", "22"
	tests := []struct {
		name   string
		master string // its cluster, "" for none yet
		seed   string
		take   bool
		refuse bool
	}{
		{"another cluster", mine, "hostX:7420", false, true},
		{"a new cluster", "", "hostX:7420", false, true},
		{"taken knowingly", mine, "hostX:7420", true, false},
		{"its master was set up again", mine, "a:7420", false, false},
	}
	for _, tt := range tests {
		for _, dry := range []bool{true, false} {
			f := newFakes()
			f.clusters = map[string]string{"b": strings.Repeat(other, 32), "c": strings.Repeat(mine, 32),
				"a": strings.Repeat(tt.master, 32)}
			f.config = "node: b\nseed: " + tt.seed + "\n"
			if tt.master == "" {
				delete(f.roles, "a")
				f.clusters["c"] = ""
				f.unjoined = map[string]bool{"a": true, "c": true}
			}
			o := f.options()
			f.builtIn(t, &o)
			o.DryRun, o.TakeOver = dry, tt.take
			said := problems(Up(t.Context(), o))
			if refused := strings.Contains(said["b"],
				"is the node b of another cluster, whose master is at hostX:7420") &&
				strings.Contains(said["b"], "--take"); refused != tt.refuse {
				t.Errorf("%s, dry run %v: got %q, want refused %v", tt.name, dry, said, tt.refuse)
			}
			if started := slices.Contains(f.did(protocol.ActionStart), "b"); started == (tt.refuse || dry) {
				t.Errorf("%s, dry run %v: started %v", tt.name, dry, started)
			}
		}
	}
}

// TestHostsTakenOut has two hosts of the last run that the cluster no longer has, of which one
// can't be reached.
func TestHostsTakenOut(t *testing.T) {
	f := newFakes()
	o := f.options()
	f.builtIn(t, &o)
	last := *o.Cluster
	last.Root = DefaultRoot
	last.Hosts = slices.Clone(append(last.Hosts, Host{Address: "gone", Roles: []grid.NodeRole{grid.Worker}}))
	last.fillDefaults("laptop", nil)
	f.roles["gone"] = "worker"
	o.Cluster = &Cluster{Hosts: last.Hosts[:2]}
	f.lost = map[string]bool{"gone": true}
	var kept []string
	o.Applied, o.SaveApplied = &last, func(c *Cluster) error {
		kept = nil
		for _, h := range c.Hosts {
			kept = append(kept, h.Name)
		}
		return nil
	}
	dry := o
	dry.DryRun = true
	all := Up(t.Context(), dry)
	if i := slices.IndexFunc(all, func(o Outcome) bool { return o.Host == "c" }); i < 0 ||
		strings.Join(all[i].Changed, "") != "would stop it, because it is no longer in the cluster" {
		t.Errorf("a dry run gives %+v", all)
	}
	if len(f.did(protocol.ActionStop)) > 0 || kept != nil {
		t.Errorf("a dry run stopped %q and kept %q", f.did(protocol.ActionStop), kept)
	}
	all = Up(t.Context(), o)
	said := problems(all)
	if len(said) != 1 || !strings.Contains(said["gone"], "no route") {
		t.Errorf("got problems %q, want one of the machine that can't be reached", said)
	}
	if got := f.did(protocol.ActionStop); !slices.Equal(got, []string{"c"}) {
		t.Errorf("stopped %q, want c", got)
	}
	if !slices.Equal(kept, []string{"a", "b", "gone"}) {
		t.Errorf("kept %q, want all but c", kept)
	}
	if !slices.Contains(f.ran, "a 'forget' '--' 'c'") {
		t.Errorf("the master ran %q, want that it forgets c", f.ran)
	}
	// The same host written in another way is the same host.
	o = f.options()
	o.Cluster.Hosts[1].Address = "ada@b"
	if left := o.Cluster.Removed(&last); len(left) != 1 || left[0].Name != "gone" {
		t.Errorf("got %+v left, want the host that can't be reached", left)
	}
}

// TestNamesStay takes machines out of a cluster whose hosts have the same first label: the others
// keep the names under which they have joined, and what was taken out is found.
func TestNamesStay(t *testing.T) {
	hosts := func(all ...string) *Cluster {
		c := &Cluster{}
		for i, a := range all {
			roles := []grid.NodeRole{grid.Worker}
			if i == 0 {
				roles = []grid.NodeRole{grid.Master}
			}
			c.Hosts = append(c.Hosts, Host{Address: a, Roles: roles})
		}
		return c
	}
	applied := hosts("master", "gpu.a", "gpu.b", "gpu.c")
	applied.fillDefaults("laptop", nil)
	for _, tt := range []struct {
		now         *Cluster
		names, left string
	}{
		{hosts("master", "gpu.a", "gpu.b", "gpu.c"), "master gpu gpu-2 gpu-3", ""},
		{hosts("master", "gpu.b", "gpu.c"), "master gpu-2 gpu-3", "gpu"},
		{hosts("master", "gpu.c"), "master gpu-3", "gpu gpu-2"},
		{hosts("master", "gpu.c", "gpu.b", "gpu.a"), "master gpu-3 gpu-2 gpu", ""},
		{hosts("master", "gpu.b", "gpu.c", "new"), "master gpu-2 gpu-3 new", "gpu"},
	} {
		for _, complete := range []bool{false, true} {
			c := *tt.now
			c.Hosts, c.Root = slices.Clone(c.Hosts), DefaultRoot
			if complete {
				c.fillDefaults("laptop", applied)
				var names []string
				for _, h := range c.Hosts {
					names = append(names, h.Name)
				}
				if got := strings.Join(names, " "); got != tt.names {
					t.Errorf("got names %q, want %q", got, tt.names)
				}
			}
			var left []string
			for _, h := range c.Removed(applied) {
				left = append(left, h.Name)
			}
			if got := strings.Join(left, " "); got != tt.left {
				t.Errorf("%s: got %q left, want %q", tt.names, got, tt.left)
			}
		}
	}
}

// TestDryRunTells has machines in all states.
func TestDryRunTells(t *testing.T) {
	f := newFakes()
	o := f.options()
	f.down["b"] = true
	f.unjoined = map[string]bool{"c": true}
	o.DryRun = true
	all := Up(t.Context(), o)
	want := []string{"would install mlfnode, write node.yaml, restart", "would install mlfnode, write node.yaml, start",
		"would install mlfnode, write node.yaml, join, restart"}
	for i := range all {
		if got := strings.Join(all[i].Changed, "; "); got != want[i] || !all[i].OK {
			t.Errorf("%s: got %q (%v), want %q", all[i].Host, got, all[i].Problem, want[i])
		}
	}
}

var errNoRoute = errors.New("no route")
