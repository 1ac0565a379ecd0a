package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mlfnode/node/api"
)

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

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

// report prints an error for the user and gives the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	f := explain(err)
	if f.msg != "" {
		for i, line := range strings.Split(strings.TrimRight(f.msg, "\n"), "\n") {
			if i == 0 {
				line = "mlfnode: " + line
			}
			fmt.Fprintln(a.stderr, line)
		}
	}
	if f.hint != "" {
		fmt.Fprintln(a.stderr, "  try: "+f.hint)
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
	case errors.Is(err, context.Canceled):
		return &failure{code: exitInterrupted}
	case errors.Is(err, api.ErrLost):
		return &failure{exitFailed, "the node went away in the middle", "run the command again"}
	case strings.HasPrefix(err.Error(), "unknown command"), strings.Contains(err.Error(), "arg(s)"):
		return &failure{exitUsage, err.Error(), "mlfnode --help"}
	}
	return &failure{exitFailed, err.Error(), ""}
}
