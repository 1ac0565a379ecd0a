package main

import (
	"io"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestFlagsDoNotHide checks that no command has a flag of the same name as a global one, which
// could then not be given.
func TestFlagsDoNotHide(t *testing.T) {
	root := rootCommand(newTestApp(io.Discard, io.Discard))
	commands := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		commands++
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if global := root.PersistentFlags().Lookup(f.Name); global != nil && global != f {
				t.Errorf("%s has its own --%s, which hides the global one: %s", c.CommandPath(), f.Name, global.Usage)
			}
		})
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(root)
	if commands < 15 {
		t.Errorf("got %d commands looked at, want them all", commands)
	}
}

// newTestApp gives an app as run makes one.
func newTestApp(stdout, stderr io.Writer) *app {
	return &app{connector: &connector{console: newConsole(stdout, stderr)}, interrupts: &interrupts{}}
}

// TestDurationFlagsHaveDays parses each flag that takes a duration with the unit that Go's
// durations lack.
func TestDurationFlagsHaveDays(t *testing.T) {
	t.Parallel()
	found := 0
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "duration" {
				return
			}
			found++
			if err := f.Value.Set("1d12h"); err != nil || f.Value.String() != "36h0m0s" {
				t.Errorf("%s --%s 1d12h: got %s, %v", c.CommandPath(), f.Name, f.Value, err)
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(rootCommand(newTestApp(io.Discard, io.Discard)))
	if found == 0 {
		t.Error("no command takes a duration")
	}
	for _, age := range []string{"1d12h", "36h", "1.5d"} {
		f := removeFlags{older: age}
		if got, err := f.check(nil); err != nil || got != 36*time.Hour {
			t.Errorf("remove --older %s: got %v, %v", age, got, err)
		}
	}
}
