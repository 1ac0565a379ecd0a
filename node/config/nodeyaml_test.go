package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mlfnode/node/master"
)

// TestNodeYAML holds that the node.yaml of the repository names every setting, with its variable,
// and shows the defaults.
func TestNodeYAML(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	b, err := os.ReadFile("../../node.yaml")
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
	walk(reflect.TypeFor[fileSettings](), "")
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
	shown, err := Load("../../node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	shown.Logger, plain.Logger = nil, nil
	if !reflect.DeepEqual(shown, plain) {
		t.Errorf("node.yaml shows other defaults:\ngot  %+v\nwant %+v", shown, plain)
	}
}

// TestSettingsWithoutAHome starts from a settings file alone, as a service of the system may.
func TestSettingsWithoutAHome(t *testing.T) {
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "MLF_STATE"} {
		t.Setenv(name, "")
	}
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("state: /srv/node\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file); err != nil || c.StateDir != "/srv/node" {
		t.Errorf("got %q, %v, want the folder of the settings", c.StateDir, err)
	}
	want := "find a folder for state: $HOME is not defined; set that, MLF_STATE, or state in node.yaml"
	if _, err := Load("/dev/null"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestOutageSettings reads what is made of lost nodes, and explains what makes no sense.
func TestOutageSettings(t *testing.T) {
	for _, c := range []struct {
		text, want string
	}{
		{"lost_after: 90s\nreconcile: keep_original\n", ""},
		{"lost_after: 2s\nreconcile: keep_replacement\n", ""},
		{"lost_after: 1s\n", "lost_after: \"1s\" is too short"},
		{"lost_after: soon\n", "lost_after: \"soon\" is not a duration"},
		{"reconcile: newest\n",
			"reconcile: \"newest\" is not a value of reconcile; write longest_running, keep_original or keep_replacement"},
	} {
		file := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load(file)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: got %v, want %q", c.text, err, c.want)
		}
		if o := got.Cluster.Outage(); err == nil &&
			(!strings.Contains(c.text, string(o.Reconcile)) || o.LostAfter < leastLostAfter) {
			t.Errorf("%q: got %+v", c.text, o)
		}
	}
	t.Setenv("MLF_LOST_AFTER", "1m")
	t.Setenv("MLF_RECONCILE", "keep_original")
	if c, err := Load("/dev/null"); err != nil || c.Cluster.LostAfter != time.Minute ||
		c.Cluster.Reconcile != master.KeepOriginal {
		t.Errorf("environment: got %+v, %v", c.Cluster, err)
	}
}
