package projects

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid/gridtest"
)

var update = flag.Bool("update", false, "write template/.project.schema.json")

var (
	tableRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.*?) \\| (.*?) ?\\|$")
	link     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// manual returns a function that looks up what the tables of docs/projects.md say about the fields
// of a project and of its tasks.
func manual(t *testing.T) func(path string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "projects.md"))
	check(t, err)
	said := map[string]string{}
	for _, m := range tableRow.FindAllStringSubmatch(string(page), -1) {
		text := m[2]
		if m[3] != "" {
			text += " (default: " + m[3] + ")"
		}
		said[m[1]] = strings.ReplaceAll(link.ReplaceAllString(text, "$1"), "`", "")
	}
	return func(path string) string {
		name := strings.TrimPrefix(path, "tasks.")
		if strings.Contains(name, ".") {
			return ""
		}
		return said[name]
	}
}

// TestSchemaIsOfTheTables compares the schema that new projects get with the tables that drive the
// parser of project.yaml, and with the manual.
func TestSchemaIsOfTheTables(t *testing.T) {
	const name = "template/" + SchemaFile
	got, err := JSONSchema(manual(t))
	check(t, err)
	if *update {
		check(t, os.WriteFile(name, got, 0o644))
	}
	want, err := os.ReadFile(name)
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s is out of date; write it with: go test ./projects -run TestSchema -update\n%s", name,
			cmp.Diff(string(want), string(got)))
	}
}

// TestSchemaTakesWhatIsRead compares the schema with the parser: the parser refuses everything that
// the schema refuses. The schema accepts the examples, including those of the manual, and refuses
// most files with errors of form.
func TestSchemaTakesWhatIsRead(t *testing.T) {
	text, err := JSONSchema(func(string) string { return "" })
	check(t, err)
	refusal := gridtest.Schema(t, text)
	good := []string{
		"name: 7\ntasks: {t: {command: echo, timeout: 90, grace: 1h30m, log_limit: 5 MB, retries: {oom: {times: 2, memory: 1.5}, exit: \"3\"}}}",
		"tasks: {a: {command: [echo, 1, true], sample: {size: 3, seed: 0}, repeat: \"2\", stop_after: 1 failure, nodes: gpu1, checkpoint: {}}}",
		"tasks: {a: {command: a, image: b, container: {ulimits: {nofile: 65536}, entrypoint: [], pull: never}, resources: {gpus: 0.5, gpu_memory: auto}}}",
		"tasks: {a: {command: a, metrics: [{log: x}, {json: stdout, optional: true}], stop: {after: 0.5}, setup: {run: [a], inputs: x}}}",
	}
	examples, err := filepath.Glob("*/project.yaml")
	check(t, err)
	for _, name := range examples {
		example, err := os.ReadFile(name)
		check(t, err)
		good = append(good, string(example))
	}
	pages, err := filepath.Glob("../docs/*.md")
	check(t, err)
	block := regexp.MustCompile("(?ms)^```yaml[^\n]*\n(.*?)^```\n")
	for _, name := range pages {
		page, err := os.ReadFile(name)
		check(t, err)
		for _, m := range block.FindAllStringSubmatch(string(page), -1) {
			if _, said := loadText(t, m[1]); said == "" {
				good = append(good, m[1])
			}
		}
	}
	if len(good) < 15 {
		t.Errorf("examples: got %d, want at least 15", len(good))
	}
	for _, text := range good {
		if err := refusal(text); err != nil {
			t.Errorf("the schema refuses\n%s%v", text, err)
		}
	}
	all, refused := badProjects(t), 0
	for _, bad := range all {
		if refusal(bad.yaml) != nil {
			refused++
		}
		if strings.Contains(bad.want, "has the unknown field") && refusal(bad.yaml) == nil &&
			!strings.Contains(bad.yaml, "*") { // the YAML library used here refuses alias loops
			t.Errorf("the schema takes %s", bad.name)
		}
	}
	if refused < len(all)/3 {
		t.Errorf("the schema refuses %d of %d wrong projects, want at least a third", refused, len(all))
	}
	t.Logf("%d right ones; %d of %d wrong ones are refused", len(good), refused, len(all))
}
