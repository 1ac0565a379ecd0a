package inventory

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMeter reads figures in the kernel's format, and checks that unreadable ones are Unknown.
func TestMeter(t *testing.T) {
	proc := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var m Meter
	unknown := Host{Load: Unknown, CPU: Unknown, Memory: Unknown, Disk: Unknown}
	if got := m.read(proc, "/nowhere", 4); got != unknown {
		t.Errorf("nothing is there: got %+v", got)
	}
	write("loadavg", "6.00 1.00 0.50 2/300 12345\n")
	write("meminfo", "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\n")
	write("stat", "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n")
	if got, want := m.read(proc, "/nowhere", 4),
		(Host{Load: 150, CPU: Unknown, Memory: 75, Disk: Unknown}); got != want {
		t.Errorf("first look: got %+v, want %+v", got, want)
	}
	write("stat", "cpu  160 5 115 710 110 0 0 0 90 0\n")
	if got := m.read(proc, "/nowhere", 4); got.CPU != 80 {
		t.Errorf("processors: got %d %%, want 80", got.CPU)
	}
	for _, text := range []string{"", "cpu", "cpu a b c d e f", "intr 1 2 3 4 5 6 7 8",
		"cpu  160 5 115 710 110 0 0 0"} {
		write("stat", text)
		if got := m.read(proc, "/nowhere", 0); got.CPU != Unknown || got.Load != Unknown {
			t.Errorf("of %q: got %+v", text, got)
		}
	}
	var real Meter
	h := real.Read(t.TempDir(), 2)
	if h.Load < 0 || h.CPU != Unknown || h.Memory < 0 || h.Memory > 100 || h.Disk < 0 || h.Disk > 100 {
		t.Errorf("of this machine: got %+v", h)
	}
}
