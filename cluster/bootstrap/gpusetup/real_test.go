package gpusetup

import (
	"encoding/json"
	"os"
	"testing"

	"mlfnode/cluster/bootstrap/shell"
)

// TestThisMachine asks the machine that runs the tests, whatever it is, and changes nothing.
func TestThisMachine(t *testing.T) {
	r, err := Setup(t.Context(), shell.Local{}, Options{DryRun: true, Image: "-"}, func(s Step) {
		t.Logf("%s %s %s", s.Check, s.Verdict, s.Text)
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Skip("this machine has a GPU")
	}
	if r.Outcome != NoGPU && r.Outcome != Stopped {
		t.Errorf("got the outcome %q on a machine without a usable GPU, want %q or %q", r.Outcome, NoGPU, Stopped)
	}
	if len(r.Changed) > 0 {
		t.Errorf("got changes %q, want none", r.Changed)
	}
}
