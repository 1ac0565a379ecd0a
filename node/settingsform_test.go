package node

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	validate "github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write node.schema.json")

// TestSchemaOfSettings compares the schema of node.yaml with the structs that it is read into and with the manual, and holds it against
// the reader: it takes the file that explains all settings, and what it refuses, the reader refuses too.
func TestSchemaOfSettings(t *testing.T) {
	page, err := os.ReadFile("../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	link := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| `(MLF_[A-Z_]+)` \\|.* \\| (.*?) \\|$").FindAllStringSubmatch(string(page), -1) {
		said[m[1]] = strings.ReplaceAll(link.ReplaceAllString(m[3], "$1"), "`", "") + " (" + m[2] + ")"
	}
	got, err := JSONSchema(func(path string) string { return said[path] })
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("node.schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(got, SettingsSchema) {
		t.Error("node.schema.json is out of date; write it with: go test ./node -run TestSchema -update")
	}
	document, err := validate.UnmarshalJSON(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	c := validate.NewCompiler()
	if err := c.AddResource("node.json", document); err != nil {
		t.Fatal(err)
	}
	form, err := c.Compile("node.json")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("../node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^( *)# ([a-z]+: [^ ].*)$`).ReplaceAllString(string(file), "$1$2") // with what is off by default
	taken := []string{string(file), shown, "gpus: {use: [0, GPU-1]}", "labels: a", "cpus: 0.5", "retention: {age: 90d, logs: 1.5 gb}", "lost_after: 1m30s", "worker: false", "ports: {api: \"1\"}"}
	refused := []string{"cpu: 3", "gpus: {uses: all}", "gpus: {foreign: kill}", "memory: much", "ports: {api: 0}", "ports: [1]", "patience: long", "crash_limit: 0", "worker: maybe", "reconcile: both", "retention: {sweeps: -1}"}
	for i, text := range append(taken, refused...) {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		name := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, wrong := LoadConfig(name)
		if says := form.Validate(v); (says != nil) != (i >= len(taken)) || (wrong != nil) != (i >= len(taken)) {
			t.Errorf("%s\nthe schema says %v, the reader %v", text, says, wrong)
		}
	}
}
