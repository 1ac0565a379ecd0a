package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"mlfnode/node/api"
)

// runNotifyCommand runs the user's command about a sweep that is at rest, by the shell. What it prints goes to stderr; that it fails says nothing
// about the sweep. It does not run after Ctrl-C.
func runNotifyCommand(ctx context.Context, ui *console, command string, v *api.Sweep) {
	if command == "" || v == nil || ctx.Err() != nil {
		return
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.Stdout, c.Stderr, c.Env = ui.stderr, ui.stderr, os.Environ()
	for name, value := range map[string]any{
		"SWEEP": v.Sweep, "SWEEP_STATE": v.State, "COUNT": v.Count, "SUCCEEDED": v.Succeeded, "FAILED": v.Failed,
		"CANCELLED": v.OnlyCancelled(), "STOPPED": v.Stopped,
	} {
		c.Env = append(c.Env, fmt.Sprintf("MLF_%s=%v", name, value))
	}
	if err := c.Run(); err != nil {
		ui.say("the command of --notify failed: %v", err)
	}
}
