package bootstrap

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap/shell"
)

// at examines this machine as another one, or as itself with boot "".
func at(t *testing.T, name, boot string) *machine {
	t.Helper()
	f, err := runProbe(context.Background(), shell.Local{}, "ML")
	if err != nil {
		t.Fatal(err)
	}
	f.User = "ada"
	if f.Boot == "" || !strings.HasPrefix(f.Disk, f.Boot) {
		t.Fatal("the probe does not say which machine this is")
	}
	if boot != "" {
		f.Disk = boot + strings.TrimPrefix(f.Disk, f.Boot)
		f.Boot = boot
	}
	return &machine{Host: &Host{Name: name}, shell: shell.Local{}, facts: f}
}

// TestTwins tells machines apart that have their home folders on one file system, whatever it is
// called, or on their own.
func TestTwins(t *testing.T) {
	home, other := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	a, b, nas, far := at(t, "a", ""), at(t, "b", ""), at(t, "nas", "boot of nas"), at(t, "far", "boot of far")
	t.Setenv("HOME", other)
	c, elsewhere := at(t, "c", ""), at(t, "elsewhere", "boot of elsewhere")
	lost := &machine{Host: &Host{Name: "lost"}}
	stale := filepath.Join(home, ".mlfnode-mark-killed-0")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(stale, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		machines []*machine
		want     map[*machine]*machine
	}{
		{[]*machine{a, c, lost}, map[*machine]*machine{}},
		{[]*machine{a, b, c, lost}, map[*machine]*machine{b: a}},
		{[]*machine{nas, elsewhere, far}, map[*machine]*machine{far: nas}},
		{[]*machine{c, nas, elsewhere, a}, map[*machine]*machine{elsewhere: c, a: nas}},
	} {
		r := &operation{report: report{announce: func(Event) {}, outcomes: map[string]*Outcome{}},
			machines: test.machines}
		for _, m := range r.machines {
			m.sharesWith = nil
			r.outcomes[m.Name] = &Outcome{OK: true}
		}
		r.refuseDuplicates(t.Context())
		for _, m := range r.machines {
			first := test.want[m]
			if got := r.machines.duplicateOf(m); got != first {
				t.Errorf("%s: got %v for the one that it shares its folder with", m.Name, got)
			}
			if p := r.outcomes[m.Name].Problem; (p != nil) != (first != nil) {
				t.Errorf("%s: got problem %v", m.Name, p)
			}
		}
	}
	for _, dir := range []string{home, other} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	for m, wanted := range map[*machine]shell.Problem{
		b: {Cause: "it is the same machine as a", Cure: "name it once"},
		far: {Cause: "it shares the folder " + home + "/ML with a, over the network",
			Cure: "make that a link to a folder that each machine has on a disk of its own, as with: ln -s /scratch/ada " + home + "/ML"},
	} {
		if got := *ProblemOf(m.duplicateProblem(a)); got != wanted {
			t.Errorf("%s:\n got %+v\nwant %+v", m.Name, got, wanted)
		}
	}
}
