package shell

import (
	"slices"
	"strings"
)

// methodNames are the ways to be let in, in the order in which they are tried.
var methodNames = [...]string{"publickey", "password", "keyboard-interactive"}

// methods are the ways that the configuration has for a machine. Those that it prefers are all that it allows, see
// PreferredAuthentications in ssh_config(5).
func methods(said settings) []string {
	names := methodNames[:]
	if preferred := said.first("PreferredAuthentications"); preferred != "" {
		names = strings.Split(strings.ToLower(preferred), ",")
	}
	options := map[string]string{
		"publickey": "PubkeyAuthentication", "password": "PasswordAuthentication", "keyboard-interactive": "KbdInteractiveAuthentication",
	}
	var methods []string
	for _, name := range names {
		off := strings.ToLower(said.first(options[name]))
		if slices.Contains(methodNames[:], name) && off != "no" && off != "false" {
			methods = append(methods, name)
		}
	}
	return methods
}
