package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"
)

var update = flag.Bool("update", false, "write node.schema.json")

// TestSchemaOfSettings compares the schema of node.yaml with its structs and with the manual, and
// checks that schema and reader agree: both accept the file that explains all settings, and each
// refuses what the other refuses.
func TestSchemaOfSettings(t *testing.T) {
	page, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	link := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	for _, m := range regexp.MustCompile(
		"(?m)^\\| `([a-z_.]+)` \\| `(MLF_[A-Z_]+)` \\|.* \\| (.*?) \\|$").FindAllStringSubmatch(string(page), -1) {
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
	} else if !bytes.Equal(got, Schema) {
		t.Error("node.schema.json is out of date; write it with: go test ./node/config -run TestSchema -update")
	}
	refusal := gridtest.Schema(t, got)
	file, err := os.ReadFile("../../node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// with what is off by default
	shown := regexp.MustCompile(`(?m)^( *)# ([a-z]+: [^ ].*)$`).ReplaceAllString(string(file), "$1$2")
	taken := []string{string(file), shown, "gpus: {use: [0, GPU-1]}", "labels: a", "cpus: 0.5",
		"retention: {age: 90d, logs: 1.5 gb}", "lost_after: 1m30s", "worker: false", "ports: {api: \"1\"}"}
	refused := []string{"cpu: 3", "gpus: {uses: all}", "gpus: {foreign: kill}", "memory: much", "ports: {api: 0}",
		"ports: [1]", "patience: long", "crash_limit: 0", "worker: maybe", "reconcile: both", "retention: {sweeps: -1}"}
	for i, text := range append(taken, refused...) {
		name := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, wrong := Load(name)
		if says := refusal(text); (says != nil) != (i >= len(taken)) || (wrong != nil) != (i >= len(taken)) {
			t.Errorf("%s\nthe schema says %v, the reader %v", text, says, wrong)
		}
	}
}
