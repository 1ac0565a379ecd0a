package projects

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestFieldsAreInTheManual looks for each field of project.yaml in the tables of docs/projects.md.
func TestFieldsAreInTheManual(t *testing.T) {
	page, err := os.ReadFile("../docs/projects.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(slices.Collect(maps.Keys(taskFields(newTask("train")))), "name", "default", "tasks") {
		if !strings.Contains(string(page), "\n| `"+name+"` |") {
			t.Errorf("docs/projects.md does not explain %s", name)
		}
	}
}
