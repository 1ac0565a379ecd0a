package main

import (
	"cmp"
	"context"
	"os"
	"os/user"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/projects"
)

// userName returns the name of the user: MLF_USER, for people who share an account, or else the
// name of the account.
func userName() string {
	if name := os.Getenv("MLF_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	// an account that is not in any list of users, as in containers
	return cmp.Or(os.Getenv("USER"), strconv.Itoa(os.Getuid()))
}

// submissionOrigin describes where a submission comes from.
func submissionOrigin(ctx context.Context, a *app, p *projects.Project) *grid.Origin {
	host, _ := os.Hostname() // "" if the machine has no name
	o := &grid.Origin{User: userName(), Host: host, Folder: p.Dir,
		Command: append([]string{"mlfnode"}, withoutValues(a.args)...)}
	if o.Folder == "" {
		o.Folder, _ = os.Getwd()
	} else {
		o.Git = projects.Checkout(ctx, o.Folder)
	}
	o.Truncate()
	return o
}

// withoutValues strips the values of --env and the command of --notify, which may contain secrets.
func withoutValues(args []string) []string {
	kept := make([]string, 0, len(args))
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(kept, args[i:]...)
		case i > 0 && args[i-1] == "--notify":
			arg = "…"
		case strings.HasPrefix(arg, "--notify="):
			arg = "--notify=…"
		}
		variable, joined := strings.CutPrefix(arg, "--env=")
		if name, _, given := strings.Cut(variable, "="); given && (joined || i > 0 && args[i-1] == "--env") {
			arg = strings.TrimSuffix(arg, variable) + name + "=…"
		}
		kept = append(kept, arg)
	}
	return kept
}
