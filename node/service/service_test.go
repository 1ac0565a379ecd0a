package service

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
)

func TestOwn(t *testing.T) {
	tests := []struct {
		name, cgroups, unit string
		user                bool
	}{
		{"unified", "0::/system.slice/mlfnode.service\n", "mlfnode.service", false},
		{"below", "0::/system.slice/mlfnode.service/agent\n", "mlfnode.service", false},
		{"hybrid", "3:memory:/x.service\n1:name=systemd:/system.slice/mlfnode.service\n0::/\n",
			"mlfnode.service", false},
		{"user", "0::/user.slice/user-7.slice/user@7.service/app.slice/mlfnode.service\n", "mlfnode.service", true},
		{"session", "0::/user.slice/user-7.slice/session-2.scope\n", "", false},
		{"user scope", "0::/user.slice/user-7.slice/user@7.service/app.slice/editor.scope\n", "", false},
		{"container", "0::/system.slice/docker-12.scope\n", "", false},
		{"seen from within a container", "0::/../..\n", "", false},
		{"nothing", "", "", false},
		{"garbage", "0::\n::\nx", "", false},
	}
	for _, tt := range tests {
		if unit, user := serviceOf(tt.cgroups); unit != tt.unit || user != tt.user {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, unit, user, tt.unit, tt.user)
		}
	}
}

func TestRestartJob(t *testing.T) {
	tests := []struct {
		jobs string
		want bool
	}{
		{"138 mlfnode.service restart running", true},
		{"1 other.service start waiting\n138 mlfnode.service restart running\n", true},
		{"138 mlfnode.service stop running", false},
		{"138 other.service restart running", false},
		{"No jobs running.", false},
		{"", false},
	}
	for _, tt := range tests {
		if got := hasRestartJob(tt.jobs, Unit); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.jobs, got, tt.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"plain": "plain", "": `""`, "a b": `"a b"`, "50%": "50%%",
		`a"b\c`: `"a\"b\\c"`, "x;y": `"x;y"`, "a\nb": `"a\nb"`,
	} {
		if got := quote(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

func TestCreatedFiles(t *testing.T) {
	m := createdFiles{Program: "/usr/local/bin/mlfnode", Config: "/etc/a=b",
		Digest: "12", Linger: "ada", State: "/var/lib/m n", Access: "/root/.config/mlfnode/context.yaml"}
	if diff := cmp.Diff(m, readCreatedFiles("[Unit]\nState=no\n"+m.text())); diff != "" {
		t.Error(diff)
	}
	if got := readCreatedFiles("[Unit]\nState=no\n"); got != (createdFiles{}) {
		t.Errorf("got %+v from a unit without a record", got)
	}
}

func TestSetting(t *testing.T) {
	text := "# seed: no\ncpus: 2\n  seed: nested\nseed: 'hostA:1' # the master\nstate: \"/var/x\"\n"
	for key, want := range map[string]string{"seed": "hostA:1", "state": "/var/x", "node": "", "cpus": "2"} {
		if got := setting(text, key); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestUnitByRelease(t *testing.T) {
	old := unit{role: grid.Worker, version: 252, command: []string{"/bin/m", "join"}, state: "/s", owner: "root"}.text()
	for _, want := range []string{"Type=notify\n", "ExecReload=", "WatchdogSec=", "StartLimitIntervalSec=0\n",
		"WantedBy=multi-user.target"} {
		if !strings.Contains(old, want) {
			t.Errorf("got a unit without %q:\n%s", want, old)
		}
	}
	young := unit{manager: Manager{User: true}, role: grid.Master, version: 257,
		command: []string{"/bin/m", "master"}, state: "/s"}.text()
	for want, there := range map[string]bool{
		"Type=notify-reload\n": true, "ExecReload=": false, "RestartSteps=": true, "WantedBy=default.target": true,
		"OOMScoreAdjust": false, "CapabilityBoundingSet": false, "User=": false,
	} {
		if strings.Contains(young, want) != there {
			t.Errorf("got %q in the unit %v, want %v:\n%s", want, !there, there, young)
		}
	}
}

func TestScopeOutside(t *testing.T) {
	got := scopeCommand("/usr/bin/systemd-run", "a b/1", true)
	want := "/usr/bin/systemd-run --user --scope --quiet --collect --unit=mlfnode-shim-a-b-1.scope -p Delegate=yes"
	if !strings.HasPrefix(strings.Join(got, " "), want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWithoutSystemd(t *testing.T) {
	h := Manager{root: t.TempDir()}
	if _, err := Status(t.Context(), h); !errors.Is(err, ErrNoSystemd) {
		t.Errorf("status: got %v, want %v", err, ErrNoSystemd)
	}
	if _, err := Install(t.Context(),
		Options{Manager: Manager{User: true, root: h.root}, Role: grid.Master}); !errors.Is(err, ErrNoSystemd) {
		t.Errorf("install: got %v, want %v", err, ErrNoSystemd)
	}
	text := WithoutSystemd(grid.Worker, "--seed", "hostA")
	for _, want := range []string{"setsid nohup mlfnode join --seed hostA >>mlfnode.log 2>&1 </dev/null &",
		"exec mlfnode join --seed hostA\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("got %s, want %s", text, want)
		}
	}
}

func TestInPlace(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/mlfnode"
	if err := writeFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, inPlace := range []bool{true, false} {
		i, err := newInstallation(Options{
			Manager: Manager{User: true}, Role: grid.Master, Program: program, ConfigFile: dir + "/node.yaml",
			StateDir: dir + "/state", InPlace: inPlace,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := i.report.Program == program; got != inPlace {
			t.Errorf("in place %v: it runs %s", inPlace, i.report.Program)
		}
	}
}

// TestDropInsAreTheUsers removes a service: settings that its user has added to the unit are
// removed only with --purge.
func TestDropInsAreTheUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mlfnode.service.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &removal{}
	r.removeDropIns(dir)
	if _, err := os.Stat(dir); err != nil || len(r.Kept) != 1 || !strings.Contains(r.Kept[0], dir) {
		t.Errorf("without --purge: kept %q, %v", r.Kept, err)
	}
	r = &removal{purge: true}
	r.removeDropIns(dir)
	if _, err := os.Stat(dir); !os.IsNotExist(err) || !slices.Equal(r.Removed, []string{dir}) {
		t.Errorf("with --purge: removed %q, %v", r.Removed, err)
	}
}
