package node

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestNodeYAML holds that the node.yaml of the repository names every setting, with its variable, and shows the defaults.
func TestNodeYAML(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	b, err := os.ReadFile("../node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var walk func(reflect.Type, string)
	walk = func(of reflect.Type, under string) {
		for i := range of.NumField() {
			f := of.Field(i)
			name := strings.TrimSuffix(f.Tag.Get("yaml"), ",inline")
			switch {
			case f.Type.Kind() != reflect.Struct:
				names = append(names, under+name)
			case name == "":
				walk(f.Type, under)
			default:
				walk(f.Type, under+name+".")
			}
		}
	}
	walk(reflect.TypeFor[settings](), "")
	if len(names) < 15 {
		t.Fatalf("found %d settings only: %v", len(names), names)
	}
	for _, name := range names {
		last := name[strings.LastIndexByte(name, '.')+1:]
		variable := "MLF_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if !strings.Contains(string(b), last+": ") || !strings.Contains(string(b), variable) {
			t.Errorf("node.yaml does not explain %s with %s", name, variable)
		}
	}
	shown, err := LoadConfig("../node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := LoadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	shown.Logger, plain.Logger = nil, nil
	if !reflect.DeepEqual(shown, plain) {
		t.Errorf("node.yaml shows other defaults:\ngot  %+v\nwant %+v", shown, plain)
	}
}

func TestWithPort(t *testing.T) {
	for text, want := range map[string]string{
		"hostA": "hostA:7420", "hostA:99": "hostA:99", "10.0.0.5": "10.0.0.5:7420", "[::1]:80": "[::1]:80", "::1": "[::1]:7420",
		"host.lab.org": "host.lab.org:7420", "": "", "a b": "", "a:b": "", "a:0": "", "a:70000": "", "https://a": "", "a/b": "", "me@a": "",
	} {
		got, err := WithPort(text, DefaultAPIPort)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}
