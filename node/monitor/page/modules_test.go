package page_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestModules runs the tests of the modules that know no page in node.
func TestModules(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node is not installed: .ci/install brings it")
		}
		t.Skip("left out: node is not installed, so the tests of the page's modules don't run")
	}
	out, err := exec.CommandContext(t.Context(), node, "--test", "testdata").CombinedOutput()
	if err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
}
