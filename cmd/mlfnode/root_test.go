package main

import (
	"io"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestFlagsDoNotHide checks that no command has a flag of the same name as a global one, which could then not be given.
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
