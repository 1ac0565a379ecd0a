package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestSettingsAreInTheManual looks for each setting of node.yaml in the tables of docs/settings.md
// and in node.yaml.
func TestSettingsAreInTheManual(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	page, file := read("../../docs/settings.md"), read("../../node.yaml")
	count := 0
	var visit func(prefix string, of reflect.Type)
	visit = func(prefix string, of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			switch {
			case options == "inline":
				visit(prefix, f.Type)
			case f.Type.Kind() == reflect.Struct:
				visit(prefix+name+".", f.Type)
			default:
				count++
				variable := "MLF_" + strings.ToUpper(strings.ReplaceAll(prefix+name, ".", "_"))
				if !strings.Contains(page, "| `"+prefix+name+"` | `"+variable+"` |") {
					t.Errorf("docs/settings.md does not explain %s with its variable %s", prefix+name, variable)
				}
				if prefix != "ports." && !strings.Contains(file, variable+"\n") &&
					!strings.Contains(file, variable+",") {
					t.Errorf("node.yaml does not name %s", variable)
				}
			}
		}
	}
	visit("", reflect.TypeFor[fileSettings]())
	if count < 30 {
		t.Errorf("settings: got %d, want at least 30", count)
	}
}
