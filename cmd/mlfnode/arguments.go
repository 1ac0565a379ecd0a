package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/grid/units"
)

// joinOptional joins a flag with an optional value, such as -f of up, with the word after it: pflag
// takes such a value only as -f=FILE.
func joinOptional(root *cobra.Command, args []string) []string {
	c, _, err := root.Find(args)
	if err != nil {
		return args // Execute reports it
	}
	optional := map[string]bool{}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.NoOptDefVal != "" && f.Value.Type() == "string" {
			optional["--"+f.Name], optional["-"+f.Shorthand] = true, f.Shorthand != ""
		}
	})
	var joined []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if optional[arg] && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			arg += "=" + args[i]
		}
		joined = append(joined, arg)
	}
	return joined
}

// badFlag explains a flag that is unknown or has an invalid value.
func badFlag(c *cobra.Command, err error) error {
	msg := err.Error()
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		kind, ok := map[string]string{"int": "a whole number", "int64": "a whole number",
			"duration": "a duration like 90s or 2h", "bool": "true or false"}[f.Value.Type()]
		if !ok {
			kind = "a " + f.Value.Type()
		}
		msg = fmt.Sprintf("--%s takes %s, not %q", f.Name, kind, invalid.GetValue())
	}
	if before := c.Flags().Args(); c.Name() == "sweep" && !errors.As(err, &invalid) && len(before) > 0 {
		if missingDashes(append(before, "…")) != nil {
			return usage(fmt.Sprintf("%s; -- is missing before %s", msg, before[0]),
				fmt.Sprintf("if the flag is one of %s: mlfnode sweep --set lr=0.1,0.01 -- %s …", before[0], before[0]))
		}
	}
	return usage(msg, c.CommandPath()+" --help")
}

// oneArgument refuses a command line that does not have exactly one argument.
func oneArgument(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usage(fmt.Sprintf("%s needs one argument, not %d: %s", c.Name(), len(args), c.Use),
		c.CommandPath()+" --help")
}

func noArgument(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(fmt.Sprintf("%s takes no arguments, but was given %q", c.Name(), args[0]), c.CommandPath()+" --help")
}

// unknownCommand refuses a first argument that is not a command, and suggests similar ones.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if like := c.SuggestionsFor(args[0]); len(like) > 0 {
		hint = fmt.Sprintf("%s %s, or: %s", c.CommandPath(), strings.Join(like, " or "), hint)
	}
	return usage(fmt.Sprintf("there is no command %q", args[0]), hint)
}

// onSweep returns a command that takes one sweep.
func onSweep(use, short, example string, fn func(context.Context, grid.TrialID) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: oneArgument,
		RunE: func(c *cobra.Command, args []string) error {
			id, err := parseTarget(args[0])
			if err != nil {
				return err
			}
			return fn(c.Context(), id)
		},
	}
}

func parseTarget(arg string) (grid.TrialID, error) {
	id, err := grid.ParseTarget(arg)
	if err != nil {
		return id, usage(err.Error(), "list sweeps with: mlfnode sweeps")
	}
	return id, nil
}

func parseSets(texts []string) ([]space.Axis, error) {
	sets := make([]space.Axis, 0, len(texts))
	for _, text := range texts {
		axis, err := space.ParseSet(text)
		if err != nil {
			return nil, err
		}
		sets = append(sets, axis)
	}
	return sets, nil
}

// durationFlag is a duration with the units of project.yaml and node.yaml, which has days as well.
type durationFlag time.Duration

func (d *durationFlag) String() string { return time.Duration(*d).String() }

// Type names the value in the help.
func (d *durationFlag) Type() string { return "duration" }

// Set implements pflag.Value.
func (d *durationFlag) Set(text string) error {
	v, err := units.ParseDuration(text)
	if err == nil {
		*d = durationFlag(v)
	}
	return err
}
