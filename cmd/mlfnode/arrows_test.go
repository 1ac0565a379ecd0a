package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers is the house, from the roof down: a package imports only what stands below its own line.
var layers = [][]string{
	{"cmd/mlfnode"},
	{"node"},
	{"node/config"},
	{"node/monitor", "node/master", "node/worker", "node/membership", "node/backup"},
	{"node/api", "node/executor", "node/failure", "node/history", "node/service", "node/doctor",
		"cluster", "jetstream"},
	{"node/checkpoint"},
	{"projects", "node/durable", "node/private", "node/processid", "node/parallel", "node/filelock", "node/cgroups"},
	{"node/poll", "node/procfs"},
	{"grid"},
	{"grid/command"},
	{"grid/space"},
	{"grid/condition", "grid/ranges", "grid/yamlfile"},
	{"grid/problem"},
	{"grid/gridtest", "grid/jsonschema", "grid/lazyregexp", "grid/moments", "grid/printable"},
}

// sideways lists the imports within a line, each with its reason.
var sideways = map[[2]string]string{
	{"node/monitor", "node/master"}:     "the monitor passes actions on to the master",
	{"node/monitor", "node/membership"}: "the monitor answers a machine that joins; both ends of that call share one type",
}

// closed lists imports that point down and are refused nevertheless.
var closed = map[[2]string]string{
	{"cmd/mlfnode", "jetstream"}:     "a command asks a node through its API, so that it works alike on every machine",
	{"cmd/mlfnode", "node/history"}:  "a command asks a node through its API, so that it works alike on every machine",
	{"cmd/mlfnode", "node/master"}:   "a command asks a node through its API, so that it works alike on every machine",
	{"cmd/mlfnode", "node/worker"}:   "a command asks a node through its API, so that it works alike on every machine",
	{"cmd/mlfnode", "node/monitor"}:  "a command asks a node through its API, so that it works alike on every machine",
	{"cmd/mlfnode", "node/executor"}: "a command runs nothing itself, the worker does",
	{"node/worker", "node/history"}:  "a worker knows nothing but its leases, so that it can run on another machine than the master",
	{"node/worker", "node/api"}:      "a worker is told what to do by leases and records alone",
	{"node/api", "projects"}:         "wire types speak the vocabulary of grid alone, so that any client can decode them",
	{"node/executor", "projects"}:    "an executor gets a folder and a command, and knows no project",
	{"jetstream", "projects"}:        "the store keeps bytes and the vocabulary of grid",
}

// owners names the one package that may import a big dependency.
var owners = map[string]string{
	"github.com/nats-io/nats-server/":      "jetstream/natsd",
	"github.com/nats-io/nats.go":           "jetstream",
	"github.com/nats-io/nuid":              "jetstream",
	"modernc.org/sqlite":                   "node/history",
	"github.com/coreos/go-systemd":         "node/service",
	"github.com/hashicorp/memberlist":      "cluster",
	"github.com/NVIDIA/go-nvml":            "cluster/inventory",
	"github.com/docker/docker":             "node/executor/docker",
	"golang.org/x/crypto/ssh":              "cluster/bootstrap/shell",
	"github.com/kevinburke/ssh_config":     "cluster/bootstrap/shell",
	"github.com/expr-lang/expr":            "grid/condition",
	"github.com/spf13/cobra":               "cmd/mlfnode",
	"charm.land/":                          "cmd/mlfnode/top",
	"github.com/charmbracelet/":            "cmd/mlfnode/top",
	"github.com/prometheus/client_golang":  "node/monitor",
	"github.com/danielgtaylor/huma":        "node/monitor", // in tests: the document is made there
	"github.com/getkin/kin-openapi":        "node/monitor", // in tests: answers are checked against the document
	"github.com/klauspost/compress/gzhttp": "node/monitor",
	"github.com/parquet-go/parquet-go":     "cmd/mlfnode/parquet",
}

const module = "mlfnode/"

// layer finds the line of a package; a package inside another one stands where that one stands.
func layer(pkg string) (line int, home string) {
	line = -1
	for i, names := range layers {
		for _, name := range names {
			if (pkg == name || strings.HasPrefix(pkg, name+"/")) && len(name) > len(home) {
				line, home = i, name
			}
		}
	}
	return line, home
}

// refuse says why a package may not import another one, "" if it may. Tests that drive the whole
// program stand on the roof.
func refuse(from, path string) string {
	for prefix, owner := range owners {
		if strings.HasPrefix(path, prefix) && from != owner {
			return fmt.Sprintf("%s is touched by %s only, so that it can be replaced in one place", prefix, owner)
		}
	}
	to, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	fromLine, fromHome := layer(from)
	toLine, toHome := layer(to)
	switch {
	case fromLine < 0 || toLine < 0:
		return "it has no place in the house: see layers"
	case fromHome == toHome, sideways[[2]string{fromHome, toHome}] != "":
		return ""
	case fromLine == toLine:
		return "packages of one line do not know each other; pass a func, or let node wire them"
	case fromLine > toLine:
		return "imports point down; pass a func for the way back"
	}
	return closed[[2]string{fromHome, toHome}]
}

func TestArrows(t *testing.T) {
	checked := 0
	eachImport(t, func(path, to string) {
		pkg := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") && (strings.HasPrefix(pkg, "cmd/mlfnode/") || pkg == "node") {
			return // they drive whole nodes
		}
		checked++
		if why := refuse(pkg, to); why != "" {
			t.Errorf("%s imports %s: %s", path, to, why)
		}
	})
	if checked < 200 {
		t.Errorf("got %d imports looked at, want them all", checked)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		from, to string
		refused  bool
	}{
		{"cmd/mlfnode", "mlfnode/node", false},
		{"cmd/mlfnode", "mlfnode/grid", false},
		{"cmd/mlfnode", "mlfnode/jetstream", true},
		{"cmd/mlfnode", "github.com/nats-io/nats.go", true},
		{"jetstream", "github.com/nats-io/nats-server/v2/server", true},
		{"jetstream", "mlfnode/jetstream/natsd", false},
		{"node", "mlfnode/node/worker", false},
		{"node/worker", "mlfnode/node", true},
		{"node/worker", "mlfnode/node/master", true},
		{"node/worker", "mlfnode/cluster/inventory", false},
		{"node/worker", "mlfnode/node/history", true},
		{"node/monitor", "mlfnode/node/master", false},
		{"node/master", "mlfnode/node/monitor", true},
		{"node/history", "modernc.org/sqlite", false},
		{"node/master", "modernc.org/sqlite", true},
		{"node/executor/executortest", "mlfnode/node/executor", false},
		{"grid", "mlfnode/projects", true},
		{"projects", "mlfnode/grid", false},
		{"grid", "mlfnode/grid/space", false},
		{"grid/space", "mlfnode/grid", true},
		{"elsewhere", "mlfnode/grid", true},
		{"grid", "strings", false},
	}
	for _, tt := range tests {
		if why := refuse(tt.from, tt.to); (why != "") != tt.refused {
			t.Errorf("%s imports %s: got %q, want refused %v", tt.from, tt.to, why, tt.refused)
		}
	}
}

// root is the folder of the module.
const root = "../.."

// eachGoFile calls fn for every Go file of the module, with its path under root.
func eachGoFile(t *testing.T, fn func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root &&
			(strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err == nil {
			fn(rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eachImport calls fn with each Go file of the module and each path that it imports.
func eachImport(t *testing.T, fn func(path, to string)) {
	t.Helper()
	eachGoFile(t, func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			to, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			fn(path, to)
		}
	})
}

// TestMapNamesEveryPackage holds that the map of docs/ARCHITECTURE.md has a place for each package
// that is not there for tests alone.
func TestMapNamesEveryPackage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, atlas, _ := strings.Cut(string(page), "\n## Map\n")
	atlas, _, found := strings.Cut(atlas, "\n## ")
	if !found {
		t.Fatal("there is no map")
	}
	packages := map[string]bool{}
	for _, top := range []string{"cmd", "node", "cluster", "jetstream", "grid", "projects"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() && filepath.Ext(path) != ".go" || strings.Contains(path, "testdata") ||
				strings.HasSuffix(filepath.Dir(path), "test") {
				return err
			}
			if !d.IsDir() {
				packages[filepath.Base(filepath.Dir(path))] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range packages {
		if !strings.Contains(atlas, "`"+name+"`") && !strings.Contains(atlas, "/"+name+"`") {
			t.Errorf("the map has no place for %s", name)
		}
	}
	if len(packages) < 40 {
		t.Errorf("packages: got %d, want at least 40", len(packages))
	}
}

// mapRow is a row of the map about one package: its folder, and who imports it.
var mapRow = regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| [^|]+ \\| ([^|]+) \\|")

// TestMapNamesImporters holds that the map of docs/ARCHITECTURE.md names who imports a package: all
// that do, unless a row ends in "and others".
func TestMapNamesImporters(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	importers := importersOfPackages(t)
	rows := 0
	for _, m := range mapRow.FindAllStringSubmatch(string(page), -1) {
		folder, text := m[1], m[2]
		if !strings.HasPrefix(text, "`") || strings.Contains(text, "`make") {
			continue // most, everything, people, tests
		}
		rows++
		listed, others := strings.CutSuffix(text, " and others")
		var names []string
		for name := range strings.SplitSeq(listed, ", ") {
			names = append(names, strings.Trim(name, "`"))
		}
		for _, name := range names {
			if !slices.Contains(importers[folder], name) {
				t.Errorf("%s: the map names %s, which does not import it; %q do", folder, name, importers[folder])
			}
		}
		for _, name := range importers[folder] {
			if !others && !slices.Contains(names, name) {
				t.Errorf("%s: the map does not name %s", folder, name)
			}
		}
	}
	if rows < 40 {
		t.Errorf("got %d rows, want at least 40", rows)
	}
}

// importersOfPackages returns which packages of the product import each package.
func importersOfPackages(t *testing.T) map[string][]string {
	all := map[string][]string{}
	eachImport(t, func(path, to string) {
		folder := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(folder, "test") || folder == "cmd/mlfnode/hosts" {
			return
		}
		if of, inside := strings.CutPrefix(to, module); inside && !slices.Contains(all[of], folder) {
			all[of] = append(all[of], folder)
		}
	})
	return all
}
