package main

import (
	"bytes"
	"os"
	"testing"

	"mlfnode/cluster/bootstrap"
	"mlfnode/grid"
)

// TestOldClusterFile has a new cluster take the place of one in cluster.yaml: what is said ends the
// machines that it does not have, and no others.
func TestOldClusterFile(t *testing.T) {
	const three = "root: ML\nhosts:\n- {address: a, roles: [master]}\n- {address: ada@b, roles: [worker]}\n- {address: \"c:2222\", name: box, roles: [worker]}\n"
	hosts := func(addresses ...string) *bootstrap.Cluster {
		c := &bootstrap.Cluster{Root: "ML"}
		for _, address := range addresses {
			c.Hosts = append(c.Hosts, bootstrap.Host{Address: address, Roles: []grid.NodeRole{grid.Master}})
		}
		return c
	}
	for _, tt := range []struct {
		name, old string
		now       *bootstrap.Cluster
		want      string
	}{
		{"no file before", "", hosts("a"), ""},
		{"other machines", three, hosts("x", "y"),
			"; stop what runs on its hosts with: mlfnode down -f cluster.yaml.old"},
		{"one less", three, hosts("a", "ada@b"),
			"; the new one does not have c:2222; stop what runs there with: mlfnode down c:2222 -f cluster.yaml.old"},
		{"two less", three, hosts("a"),
			"; the new one does not have ada@b, c:2222; stop what runs there with: mlfnode down ada@b c:2222 -f cluster.yaml.old"},
		{"another way to write them", three, hosts("a", "b", "box"), ""},
		{"more", three, hosts("a", "ada@b", "c:2222", "d"), ""},
		{"not a cluster", "hosts: {", hosts("a"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if tt.old != "" {
				if err := os.WriteFile("cluster.yaml", []byte(tt.old), 0o644); err != nil {
					t.Fatal(err)
				}
				tt.want = "the previous cluster.yaml is now cluster.yaml.old" + tt.want + "\n"
			}
			var said bytes.Buffer
			if err := (&clusterFlags{file: "cluster.yaml"}).saveCluster(&console{stderr: &said}, tt.now); err != nil {
				t.Fatal(err)
			}
			if said.String() != tt.want {
				t.Errorf("got  %q\nwant %q", &said, tt.want)
			}
		})
	}
}
