package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/node"
	"mlfnode/node/service"
)

// runAs is the flag of commands about a service that root may have for another user.
const runAs = "run-as"

// orAs gives a command about a service the flag --run-as USER: it is run as that user, for a service of theirs.
func (a *app) orAs(c *cobra.Command) *cobra.Command {
	c.Flags().String(runAs, "", "as a service of this `USER`, whose trials then run as them; for root")
	own := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		name := c.Flag(runAs).Value.String()
		if name == "" {
			return own(c, args)
		}
		return a.as(c, name)
	}
	return c
}

// as runs a command line again, as a user, with --user in the place of --run-as.
func (a *app) as(c *cobra.Command, name string) error {
	args := append(strings.Fields(c.CommandPath())[1:], "--user")
	token := os.Getenv(node.TokenVariable)
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case runAs, "user":
		case "token-file": // may be for root's eyes
			token, err = a.tokenText(c.Context(), f.Value.String())
		default:
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	if err != nil {
		return err
	}
	return a.runFor(c.Context(), name, strings.TrimSpace(token), args)
}

func (a *app) runFor(ctx context.Context, name, token string, args []string) error {
	command, release, err := service.For(ctx, name, args...)
	switch {
	case errors.Is(err, service.ErrNoSystemd):
		return failed(err.Error(), "su - "+name+", and there: mlfnode join or mlfnode master")
	case errors.Is(err, fs.ErrPermission):
		return failed("--run-as is for root", "the same command with sudo, or as "+name+" with --user")
	case err != nil:
		return err
	}
	defer release()
	if token != "" {
		command.Env = append(command.Env, node.TokenVariable+"="+token)
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, a.stdout, a.stderr
	var exit *exec.ExitError
	if err := command.Run(); errors.As(err, &exit) {
		return &failure{code: max(exit.ExitCode(), exitFailed)} // it has said why
	} else if err != nil {
		return failed("mlfnode can't be run as "+name+": "+err.Error(), "put it into /usr/local/bin, where everybody may run it")
	}
	return nil
}
