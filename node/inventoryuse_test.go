package node

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSettingsImportNoDriver holds which parts of the inventory each file of this package and of
// the settings may use: only the node itself looks at GPUs.
func TestSettingsImportNoDriver(t *testing.T) {
	allowed := map[string][]string{
		"config/config.go": {"Machine", "Size", "Source"}, "gpusource.go": {"Source"},
		"fakegpus.go":   {"Source", "Machine", "Sample"},
		"workerpart.go": {"Machine"}, "node.go": {"NewWatcher", "Watcher"}, "devices.go": {"Machine", "Read"},
		"membership/members.go": {"Unknown"}, "membership/membership.go": {"Machine"},
		"sample.go": {"Machine", "Host", "Meter", "Unknown"},
	}
	var files []string
	for _, pattern := range []string{"*.go", "config/*.go", "membership/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "inventory" &&
					!slices.Contains(allowed[path], s.Sel.Name) {
					t.Errorf(
						"%s uses inventory.%s: GPUs are looked for by a running node alone (devices.go), never by settings",
						path, s.Sel.Name)
				}
			}
			return true
		})
	}
}
