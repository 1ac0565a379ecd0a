package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/grid/printable"
	"mlfnode/node/api"
)

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// longestMessage bounds an error that is shown; it may hold the problems of a long file.
const longestMessage = 64 << 10

// failure ends the command with an exit code. An empty message means that everything has been said.
type failure struct {
	code int
	msg  string
	hint string
}

func (f *failure) Error() string { return f.msg }

// usage is wrong usage: what is wrong, and what to try.
func usage(msg, hint string) error { return &failure{exitUsage, msg, hint} }

// failed is everything else that the user can do something about.
func failed(msg, hint string) error { return &failure{exitFailed, msg, hint} }

// interruption takes the place of an error after a signal has ended ctx: what went wrong went wrong for that. A failure
// without words is no error, but the exit code that the command came to.
func interruption(ctx context.Context, err error) error {
	var f *failure
	if err == nil || ctx.Err() == nil || (errors.As(err, &f) && f.msg == "") {
		return err
	}
	return &failure{code: exitInterrupted}
}

// report prints an error for the user and gives the exit code.
func (ui *console) report(err error) int {
	if err == nil {
		return 0
	}
	f := explain(err)
	if f.msg != "" {
		// What another machine has said may be in it.
		for i, line := range strings.Split(printable.Text(f.msg, longestMessage), "\n") {
			if i == 0 {
				line = "mlfnode: " + line
			}
			fmt.Fprintln(ui.stderr, line)
		}
	}
	if f.hint != "" {
		fmt.Fprintln(ui.stderr, "  try: "+printable.Text(f.hint, longestMessage))
	}
	return f.code
}

func explain(err error) *failure {
	var f *failure
	var refusal *api.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &refusal):
		return &failure{exitFailed, refusal.Msg, refusal.Hint}
	case errors.Is(err, api.ErrLost):
		return &failure{exitFailed, "the connection to the node was lost", "run the command again"}
	case errors.Is(err, syscall.ENOSPC):
		return &failure{exitFailed, err.Error(), "make room on that disk, or keep state on another one with --state-dir"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return &failure{exitFailed, err.Error(), "keep state in a folder of your own with --state-dir"}
	}
	return &failure{exitFailed, err.Error(), ""}
}

// badFlag explains a flag that is unknown or has a value it does not take.
func badFlag(c *cobra.Command, err error) error {
	msg := err.Error()
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		f := invalid.GetFlag()
		kind, ok := map[string]string{"int": "a whole number", "int64": "a whole number", "duration": "a duration like 90s or 2h", "bool": "true or false"}[f.Value.Type()]
		if !ok {
			kind = "a " + f.Value.Type()
		}
		msg = fmt.Sprintf("--%s takes %s, not %q", f.Name, kind, invalid.GetValue())
	}
	if before := c.Flags().Args(); c.Name() == "sweep" && !errors.As(err, &invalid) && len(before) > 0 {
		if missingDashes(append(before, "…")) != nil {
			return usage(fmt.Sprintf("%s; -- is missing before %s", msg, before[0]), fmt.Sprintf("if the flag is one of %s: mlfnode sweep --set lr=0.1,0.01 -- %s …", before[0], before[0]))
		}
	}
	return usage(msg, c.CommandPath()+" --help")
}

// oneArgument refuses a command line without exactly one argument.
func oneArgument(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usage(fmt.Sprintf("%s needs one argument, not %d: %s", c.Name(), len(args), c.Use), c.CommandPath()+" --help")
}

func noArgument(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage(fmt.Sprintf("%s takes no arguments, but was given %q", c.Name(), args[0]), c.CommandPath()+" --help")
}

// unknownCommand refuses the first argument of the program, which is no command, and names those that resemble it.
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
