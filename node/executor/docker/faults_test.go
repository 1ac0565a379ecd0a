package docker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"

	"mlfnode/grid"
	"mlfnode/node/executor"
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

// TestLabelsOfSELinux: an engine that enforces them is asked not to.
func TestLabelsOfSELinux(t *testing.T) {
	for _, option := range []string{"name=selinux", "name=seccomp,profile=default"} {
		e := &Engine{}
		e.facts.Store(&facts{info: system.Info{SecurityOptions: []string{option}}})
		a := &executor.Attempt{Spec: executor.Spec{Container: &executor.Container{}}, Argv: []string{"true"}}
		r := New(Options{}, slog.New(slog.DiscardHandler)).runOf(e, a, "x", order{})
		_, host, err := r.describe()
		if got, want := slices.Contains(host.SecurityOpt, "label=disable"), option == "name=selinux"; err != nil || got != want {
			t.Errorf("%s: got %v, %v", option, host.SecurityOpt, err)
		}
	}
}

// TestForeignProcesses: an engine elsewhere numbers its own processes.
func TestForeignProcesses(t *testing.T) {
	r := New(Options{}, slog.New(slog.DiscardHandler)).runOf(&Engine{}, &executor.Attempt{}, "x", order{ID: strings.Repeat("a", 64)})
	r.learn(&container.State{Pid: os.Getpid()})
	if got := r.process(); got.PID != 0 {
		t.Errorf("got %+v, want no process of this machine", got)
	}
}

// TestEndsThatNobodySaw: a container that ended while nobody heard the engine may have ended with that.
func TestEndsThatNobodySaw(t *testing.T) {
	r := New(Options{}, slog.New(slog.DiscardHandler)).runOf(&Engine{}, &executor.Attempt{}, "x", order{})
	for code, want := range map[int]bool{0: false, 1: false, 137: true, 143: true, 255: true} {
		if got := r.restarted(&container.State{ExitCode: code}, evidence{breaks: -1}); got != want {
			t.Errorf("exit code %d unseen: got %v, want %v", code, got, want)
		}
		if r.restarted(&container.State{ExitCode: code}, evidence{}) {
			t.Errorf("exit code %d while the engine was heard is told as its restart", code)
		}
	}
}
