package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
)

// TestClusterOfTheManual reads the cluster.yaml of docs/clusters.md, and makes the settings of its
// nodes.
func TestClusterOfTheManual(t *testing.T) {
	page, err := os.ReadFile("../../docs/clusters.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml lab/cluster.yaml\n")
	text, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("docs/clusters.md has no cluster.yaml")
	}
	file := filepath.Join(t.TempDir(), DefaultFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.fillDefaults("laptop", nil)
	if got, want := strings.Join(shape(c), ", "),
		"gpu1 ada@gpu1.example.org master worker, gpu2 ada@gpu2.example.org:2222 worker"; got != want {
		t.Errorf("hosts: got %s, want %s", got, want)
	}
	for i, want := range []string{"patience: 30s\n", "cpus: 32\n"} {
		if got, err := c.nodeConfig(&c.Hosts[i], protocol.Layout{Root: "/home/ada/mlf"}); err != nil ||
			!strings.Contains(got, want) {
			t.Errorf("node.yaml of %s: got %v\n%s, want %s", c.Hosts[i].Name, err, got, want)
		}
	}
}
