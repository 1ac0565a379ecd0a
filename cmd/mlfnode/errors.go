package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"mlfnode/node/api"
)

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// longestMessage bounds an error message, which may list the problems of a long file.
const longestMessage = 64 << 10

// failure ends the command with an exit code. An empty message means that everything has been said
// already.
type failure struct {
	code int
	msg  string
	hint string
}

func (f *failure) Error() string { return f.msg }

// usage returns an error about wrong usage: what is wrong, and what to try.
func usage(msg, hint string) error { return &failure{exitUsage, msg, hint} }

// failed returns any other error that the user can do something about.
func failed(msg, hint string) error { return &failure{exitFailed, msg, hint} }

// asInterruption replaces an error after a signal has canceled ctx, which caused it. A failure
// without words is not an error but the exit code of the command, and stays.
func asInterruption(ctx context.Context, err error) error {
	var f *failure
	if err == nil || ctx.Err() == nil || (errors.As(err, &f) && f.msg == "") {
		return err
	}
	return &failure{code: exitInterrupted}
}

func asFailure(err error) *failure {
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
		return &failure{exitFailed, err.Error(),
			"make room on that disk, or keep state on another one with --state-dir"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return &failure{exitFailed, err.Error(), "keep state in a folder of your own with --state-dir"}
	}
	return &failure{exitFailed, err.Error(), ""}
}

// asUsage turns an error about the user's input into a usage error.
func asUsage(err error) error {
	msg, hint, found := strings.Cut(err.Error(), "\n  try: ")
	if !found {
		hint = ""
	}
	return usage(msg, hint)
}
