package inventorytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mlfnode/cluster/inventory"
)

func newFake(t *testing.T, description, file string) *Fake {
	t.Helper()
	f, err := New(description, "n", file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestDescriptions(t *testing.T) {
	var m inventory.Machine
	newFake(t, "4xA100-40@2,1xH100-80:1g.10gb*2+3g.40gb*1", "").Read(t.Context(), &m)
	if len(m.GPUs) != 5 || m.GPUs[1].Group != 0 || m.GPUs[2].Group != 2 || m.GPUs[0].Memory != 40<<30 ||
		m.GPUs[4].Capability != "9.0" {
		t.Errorf("got %+v", m.GPUs)
	}
	if in := m.GPUs[4].Instances; len(in) != 3 || in[2].Profile != "3g.40gb" || in[2].Memory != 40<<30 ||
		len(m.GPUs[0].UUID) != 40 {
		t.Errorf("got %+v", in)
	}
	for _, text := range []string{"", "A100-40", "2xA100", "2xA100-40@0", "1xA100-40:1g", "twoxA100-40"} {
		if _, err := New(text, "n", ""); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestScript changes devices through a file, as the programs of other tests do.
func TestScript(t *testing.T) {
	file := filepath.Join(t.TempDir(), "script")
	f := newFake(t, "2xA100-40,1xA100-40:1g.5gb*7", file)
	say := func(lines ...string) inventory.Sample {
		t.Helper()
		old, _ := os.ReadFile(file) // it does not exist at first
		if err := os.WriteFile(file, append(old, strings.Join(lines, "\n")+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := f.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := f.GPUs()[0].UUID
	program := exec.Command("sleep", "1000")
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer program.Process.Kill()
	s := say("use 0 77 3GiB", "run "+first+" "+strconv.Itoa(program.Process.Pid)+" 1GiB", "leak 1 2GiB", "busy 0 90",
		"xid 0 79", "xid ? 13", "use 2.6 5 1GiB")
	if u, _ := s.Find(first); u.Memory != 4<<30+base || len(u.Processes) != 2 || u.Busy != 90 {
		t.Errorf("got %+v", u)
	}
	if u := s.Uses[1]; u.Memory != 2<<30+base || len(u.Processes) != 0 {
		t.Errorf("got %+v", u)
	}
	if len(s.Uses) != 9 || len(s.Uses[8].Processes) != 1 || len(s.Faults) != 2 || s.Faults[1].UUID != "" {
		t.Errorf("got %+v", s)
	}
	program.Process.Kill()
	program.Wait()
	s = say("gone 1", "wait fail", "use 0 77 0")
	if u, _ := s.Find(first); len(u.Processes) != 0 || u.Memory != base || len(s.Uses) != 8 || s.Health == nil ||
		len(s.Faults) != 0 {
		t.Errorf("got %+v", s)
	}
	for _, line := range []string{"dance", "use 9 1 1GiB", "use 0 x 1GiB", "leak 0", "xid 0 many", "recovery 0 x"} {
		if f.Do(line) == nil {
			t.Errorf("%q was taken", line)
		}
	}
	if f.Do("driver fail") != nil {
		t.Error("driver fail was refused")
	}
	if _, err := f.Sample(t.Context()); err == nil {
		t.Error("a sample from a broken driver")
	}
}
