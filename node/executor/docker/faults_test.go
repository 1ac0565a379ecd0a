package docker

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"mlfnode/grid"
)

// TestErrorsOfEngines has what engines say when an image can't be pulled, or a container can't be launched: class, what was asked of the
// engine, its words, and where they are from.
func TestErrorsOfEngines(t *testing.T) {
	text, err := os.ReadFile("testdata/errors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 {
			t.Fatalf("%q: got %d fields, want 4", line, len(f))
		}
		said := errors.New(f[2])
		got := faultClass(said)
		if f[1] == "launch" {
			got = launchFault("start", said).(*Fault).Class
		}
		if string(got) != f[0] {
			t.Errorf("%s: %s: got %s, want %s", f[1], f[2], got, f[0])
		}
	}
}

// TestBrokenConnectionIsTheEngines: what an engine tells of a registry is text, and what happens to its own connection is not.
func TestBrokenConnectionIsTheEngines(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("read the engine's report about the pull: %w", io.ErrUnexpectedEOF),
		fmt.Errorf("error during connect: %w", &net.OpError{Op: "dial", Net: "unix", Err: errors.New("i/o timeout")}),
	} {
		if got := faultClass(err); got != grid.ClassEngine {
			t.Errorf("%v: got %s, want %s", err, got, grid.ClassEngine)
		}
	}
}
