package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mlfnode/node"
	"mlfnode/node/service"
)

// runAs is the flag of commands about a service that root may have for another user.
const runAs = "run-as"

// withRunAs gives a command about a service the flag --run-as USER: it is run as that user, for a service of theirs.
func withRunAs(ui *console, c *cobra.Command) *cobra.Command {
	c.Flags().String(runAs, "", "as a service of this `USER`, as whom its trials run; needs root")
	own := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		name := c.Flag(runAs).Value.String()
		if name == "" {
			return own(c, args)
		}
		return runAsUser(ui, c, name)
	}
	return c
}

// runAsUser runs a command line again, as a user, with --user in the place of --run-as.
func runAsUser(ui *console, c *cobra.Command, name string) error {
	args, err := asUser(c)
	if err != nil {
		return err
	}
	token := os.Getenv(node.TokenVariable)
	if f := c.Flag("token-file"); f != nil && f.Changed { // may be for root's eyes
		if token, err = readTokenText(c.Context(), ui, f.Value.String()); err != nil {
			return err
		}
	}
	return runServiceCommand(ui, c, name, strings.TrimSpace(token), args)
}

// asUser gives the arguments of a command line for the same command about a service of the user that it is run as, in a folder
// of theirs.
func asUser(c *cobra.Command) ([]string, error) {
	args := append(strings.Fields(c.CommandPath())[1:], "--user")
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		switch f.Name {
		case runAs, "user", "token-file":
			return
		case "config", "state-dir":
			path, e := filepath.Abs(value)
			value, err = path, errors.Join(err, e)
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args, err
}

func runServiceCommand(ui *console, c *cobra.Command, name, token string, args []string) error {
	command, release, err := service.For(c.Context(), name, c.Name() == "install", args...)
	switch {
	case errors.Is(err, service.ErrNoService) && c.Name() == "status":
		return printService(ui, service.State{User: true, Keepers: []string{}}, " --run-as "+name)
	case errors.Is(err, service.ErrNoService):
		fmt.Fprintln(ui.stdout, err)
		return nil
	case errors.Is(err, service.ErrNoSystemd):
		return failed(err.Error(), "su - "+name+", and there: mlfnode join or mlfnode master")
	case errors.Is(err, fs.ErrPermission):
		return failed("--run-as needs root", "the same command with sudo, or as "+name+" with --user")
	case err != nil:
		return err
	}
	defer release()
	if token != "" {
		command.Env = append(command.Env, node.TokenVariable+"="+token)
	}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, ui.stdout, ui.stderr
	var exit *exec.ExitError
	if err := command.Run(); errors.As(err, &exit) {
		return &failure{code: max(exit.ExitCode(), exitFailed)} // it has said why
	} else if err != nil {
		return failed("mlfnode can't be run as "+name+": "+err.Error(), "put it into /usr/local/bin, where everybody may run it")
	}
	return nil
}
