package bootstrap

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"mlfnode/cluster/bootstrap/shell"
)

// at examines this machine as one whose home folder is on that disk, in df's words; "" for the disk that it is on.
func at(t *testing.T, name, boot, disk string) *machine {
	t.Helper()
	programs := t.TempDir()
	if disk != "" {
		script := "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted on\necho " + disk + " 9000000 1000000 8000000 11% /home\n"
		if err := os.WriteFile(filepath.Join(programs, "df"), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", programs+":/usr/bin:/bin")
	f, err := examine(context.Background(), shell.Local{}, "ML")
	if err != nil {
		t.Fatal(err)
	}
	f.User = "ada"
	if f.Boot == "" {
		t.Fatal("the probe does not say which machine this is")
	}
	if boot != "" {
		f.Boot = boot
	}
	return &machine{Host: &Host{Name: name}, facts: f}
}

// TestTwins tells machines apart, and the places on their disks.
func TestTwins(t *testing.T) {
	home, other := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	a, b := at(t, "a", "", ""), at(t, "b", "", "")
	nas, far := at(t, "nas", "boot of nas", "nas:/home"), at(t, "far", "boot of far", "nas:/home")
	t.Setenv("HOME", other)
	c, elsewhere := at(t, "c", "", ""), at(t, "elsewhere", "boot of elsewhere", "nas:/home")
	r := &run{machines: []*machine{a, b, c, nas, far, elsewhere, {Host: &Host{Name: "lost"}}}}
	want := map[*machine]*machine{b: a, far: nas}
	for _, m := range r.machines {
		if got := r.first(m); got != want[m] {
			t.Errorf("%s: got %v for the one that it shares its folder with", m.Name, got)
		}
	}
	for m, wanted := range map[*machine]shell.Problem{
		b: {Cause: "it is the same machine as a", Cure: "name it once"},
		far: {Cause: "it shares the folder " + home + "/ML with nas, over the network",
			Cure: "make that a link to a folder that each machine has on a disk of its own, as with: ln -s /scratch/ada " + home + "/ML"},
	} {
		if got := *ProblemOf(m.twin(want[m])); got != wanted {
			t.Errorf("%s:\n got %+v\nwant %+v", m.Name, got, wanted)
		}
	}
}
