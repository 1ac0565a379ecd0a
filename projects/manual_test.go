package projects

import (
	"os"
	"strings"
	"testing"
)

// TestFieldsAreInTheManual looks for each field of project.yaml in the tables of docs/projects.md.
func TestFieldsAreInTheManual(t *testing.T) {
	page, err := os.ReadFile("../docs/projects.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{}
	for _, name := range append(names(s.taskFields(newTask("train"))), "name", "default", "tasks") {
		if !strings.Contains(string(page), "\n| `"+name+"` |") {
			t.Errorf("docs/projects.md does not explain %s", name)
		}
	}
}
