package provision

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/processid"
)

// TestNumbersOfOtherMachines has the lock of a supervisor held, with the number of a process that
// is none.
func TestNumbersOfOtherMachines(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	mine, _ := processid.Of(c.Process.Pid)
	tests := []struct {
		name, id string
		host     string // "" for no refusal
	}{
		{"a number alone", "", ""},
		{"another number", processid.ID{PID: mine.PID + 1, Start: mine.Start, Boot: "b00"}.String() + "\ngpu1\n", ""},
		{"another start", processid.ID{PID: mine.PID, Start: mine.Start + 7, Boot: mine.Boot}.String() +
			"\ngpu1\n", "gpu1"},
		{"another machine", processid.ID{PID: mine.PID, Start: mine.Start, Boot: "b00"}.String() + "\ngpu2\n", "gpu2"},
		{"without a host", processid.ID{PID: mine.PID, Start: mine.Start, Boot: "b00"}.String() +
			"\n", "another machine"},
		{"damaged", "x y z\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := &operation{installation: installation{Layout: protocol.Layout{Root: t.TempDir()}}}
			f, err := os.Create(supervisorLock(o.Layout))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := fmt.Fprintln(f, mine.PID); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(supervisorID(o.Layout), []byte(tt.id), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(o.State(), 0o700); err != nil {
				t.Fatal(err)
			}
			o.request.Purge = true
			err = o.stop(t.Context())
			if (err != nil) != (tt.host != "") || err != nil &&
				!strings.Contains(err.Error(), "runs on "+tt.host+", which shares the folder") {
				t.Errorf("got %v, want a refusal that names %q", err, tt.host)
			}
			if !mine.Alive() {
				t.Fatal("a process of the user was ended")
			}
			if _, err := os.Stat(filepath.Join(o.Root, "state")); tt.host != "" && err != nil {
				t.Error("the folder of a node on another machine was purged")
			}
		})
	}
}
