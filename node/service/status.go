package service

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// State describes the service of this host. Only User is set if none is installed.
type State struct {
	Installed bool     `json:"installed"`
	User      bool     `json:"user"`              // a service of the calling user
	File      string   `json:"file,omitempty"`    // the unit's file
	Enabled   bool     `json:"enabled"`           // it starts with the machine, or at the user's first login
	Active    string   `json:"active,omitempty"`  // active, activating, reloading, deactivating, inactive or failed
	Detail    string   `json:"detail,omitempty"`  // systemd's substate: running, auto-restart, …
	Text      string   `json:"text,omitempty"`    // the status that the node reports
	PID       int      `json:"pid,omitempty"`     // of the agent
	Since     string   `json:"since,omitempty"`   // when it became active
	Restarts  int      `json:"restarts"`          // automatic restarts
	Result    string   `json:"result,omitempty"`  // how it last ended: success, exit-code, signal, watchdog, …
	Program   string   `json:"program,omitempty"` // its command line
	Linger    bool     `json:"linger"`            // a user service that runs without a login
	Shims     []string `json:"keepers"`           // scopes with trials
}

// Status asks systemd about the service. It needs no privileges.
func Status(ctx context.Context, h Manager) (State, error) {
	s := State{User: h.User, Shims: []string{}}
	if err := h.checkReachable(ctx); err != nil {
		return s, err
	}
	l, err := h.layout()
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(l.unit); err != nil {
		return s, nil
	}
	p, err := h.properties(ctx, "ActiveState", "SubState", "StatusText", "MainPID", "ActiveEnterTimestamp",
		"NRestarts", "Result", "UnitFileState", "ExecStart")
	if err != nil {
		return s, fmt.Errorf("ask systemd about the service: %w", err)
	}
	s.Installed, s.File, s.Enabled = true, l.unit, p["UnitFileState"] == "enabled"
	s.Active, s.Detail, s.Text, s.Since, s.Result = p["ActiveState"], p["SubState"], p["StatusText"],
		p["ActiveEnterTimestamp"], p["Result"]
	s.PID, _ = strconv.Atoi(p["MainPID"])
	s.Restarts, _ = strconv.Atoi(p["NRestarts"])
	_, argv, _ := strings.Cut(p["ExecStart"], "argv[]=")
	s.Program, _, _ = strings.Cut(argv, " ;")
	if scopes, err := h.scopes(ctx); err == nil {
		s.Shims = append(s.Shims, scopes...)
	}
	if h.User {
		out, err := run(ctx, "loginctl", "show-user", l.owner, "-p", "Linger", "--value")
		s.Linger = err == nil && out == "yes"
	}
	return s, nil
}
