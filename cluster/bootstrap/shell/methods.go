package shell

import (
	"slices"
	"strings"
)

// methodNames are the ways to be let in, in the order in which they are tried.
var methodNames = [...]string{"publickey", "password", "keyboard-interactive"}

// methods are the ways that the configuration has for a machine. Those that it prefers are all that it allows, see
// PreferredAuthentications in ssh_config(5).
func (d *Dialer) methods(host string) []string {
	names := methodNames[:]
	if preferred := d.config.first(host, "PreferredAuthentications"); preferred != "" {
		names = strings.Split(strings.ToLower(preferred), ",")
	}
	var methods []string
	for _, name := range names {
		if slices.Contains(methodNames[:], name) && !d.forbidden(host, name) {
			methods = append(methods, name)
		}
	}
	return methods
}

// forbidden reports whether a method is switched off.
func (d *Dialer) forbidden(host, method string) bool {
	options := map[string][]string{
		"publickey":            {"PubkeyAuthentication"},
		"password":             {"PasswordAuthentication"},
		"keyboard-interactive": {"KbdInteractiveAuthentication", "ChallengeResponseAuthentication"}, // the second is its old name
	}
	_, value := d.config.whichever(host, options[method]...)
	return strings.EqualFold(strings.Trim(value, `"`), "no")
}
