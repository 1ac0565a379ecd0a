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

// TestEngineErrorsAreClassified lists errors of engines that can't pull an image or launch a
// container: class, request, text, and the source of the text.
func TestEngineErrorsAreClassified(t *testing.T) {
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
		got := imageErrorClass(said)
		if f[1] == "launch" {
			got = launchError("start", said).(*EngineError).Class
		}
		if string(got) != f[0] {
			t.Errorf("%s: %s: got %s, want %s", f[1], f[2], got, f[0])
		}
	}
}

// TestLostConnectionIsAnEngineError checks that a lost connection to the engine is not taken for
// the engine's report about a registry, which is text.
func TestLostConnectionIsAnEngineError(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("read the engine's report about the pull: %w", io.ErrUnexpectedEOF),
		fmt.Errorf("error during connect: %w", &net.OpError{Op: "dial", Net: "unix", Err: errors.New("i/o timeout")}),
	} {
		if got := imageErrorClass(err); got != grid.ClassEngine {
			t.Errorf("%v: got %s, want %s", err, got, grid.ClassEngine)
		}
	}
}

// TestSELinuxLabelsAreDisabled checks that an engine that enforces labels is asked not to.
func TestSELinuxLabelsAreDisabled(t *testing.T) {
	for _, option := range []string{"name=selinux", "name=seccomp,profile=default"} {
		e := &Engine{}
		e.about.Store(&engineInfo{info: system.Info{SecurityOptions: []string{option}}})
		a := &executor.Attempt{Spec: executor.Spec{Container: &executor.Container{}}, Argv: []string{"true"}}
		r := New(Options{}, slog.New(slog.DiscardHandler)).openRun(e, a, "x", runRecord{})
		_, host, err := r.containerConfig()
		if got, want := slices.Contains(host.SecurityOpt, "label=disable"),
			option == "name=selinux"; err != nil || got != want {
			t.Errorf("%s: got %v, %v", option, host.SecurityOpt, err)
		}
	}
}

// TestPIDsOfAnotherMachineAreIgnored checks that a PID of another machine's engine is not taken for
// one of this machine.
func TestPIDsOfAnotherMachineAreIgnored(t *testing.T) {
	r := New(Options{}, slog.New(slog.DiscardHandler)).openRun(&Engine{}, &executor.Attempt{},
		"x", runRecord{ID: strings.Repeat("a", 64)})
	r.processes.learn(&container.State{Pid: os.Getpid()})
	if got := r.processes.first(); got.PID != 0 {
		t.Errorf("got %+v, want no process of this machine", got)
	}
}

// TestKillWithoutEventsCountsAsEngineRestart checks that a container that was killed while no
// events arrived counts as ended by a restart of its engine.
func TestKillWithoutEventsCountsAsEngineRestart(t *testing.T) {
	r := New(Options{}, slog.New(slog.DiscardHandler)).openRun(&Engine{}, &executor.Attempt{}, "x", runRecord{})
	for code, want := range map[int]bool{0: false, 1: false, 137: true, 143: true, 255: true} {
		if got := r.x.events.sawRestart(&container.State{ExitCode: code}, containerEvents{breaks: -1}); got != want {
			t.Errorf("exit code %d unseen: got %v, want %v", code, got, want)
		}
		if r.x.events.sawRestart(&container.State{ExitCode: code}, containerEvents{}) {
			t.Errorf("exit code %d is taken for a restart of the engine although no event was missed", code)
		}
	}
}
