package processid

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignalReachesNoOtherProcess uses the PID of a live process in IDs that are not its own.
func TestSignalReachesNoOtherProcess(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	id, ok := Of(c.Process.Pid)
	if !ok || !id.Alive() {
		t.Fatalf("%+v is not alive", id)
	}
	if back, err := Parse(id.String()); err != nil || back != id {
		t.Errorf("%q is read as %+v, %v", id, back, err)
	}
	for name, other := range map[string]ID{
		"earlier":         {id.PID, id.Start - 1, id.Boot},
		"another machine": {id.PID, id.Start, "c0ffee00-0000-0000-0000-000000000000"},
		"a number alone":  {PID: id.PID},
		"none":            {},
		"out of range":    {PID: 1 << 30, Start: id.Start, Boot: id.Boot},
	} {
		if err := other.Signal(unix.SIGKILL); other.Alive() || !errors.Is(err, unix.ESRCH) {
			t.Errorf("%s: got alive %v, %v, want that there is no such process", name, other.Alive(), err)
		}
	}
	if !id.Alive() {
		t.Fatal("the process was ended")
	}
	if err := id.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || id.Alive() {
		t.Errorf("got %v, alive %v after SIGKILL", err, id.Alive())
	}
	if !Self().Alive() || Self().PID != os.Getpid() {
		t.Errorf("%+v is not this process", Self())
	}
}

func TestParse(t *testing.T) {
	for _, text := range []string{"", "x", "-1", "0", "1 2", "1 x boot", "1 2 3 4", "1\x00", "17\n"} {
		if id, err := Parse(text); err == nil {
			t.Errorf("%q is read as %+v", text, id)
		}
	}
}
