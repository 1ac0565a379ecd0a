package shell

import (
	"errors"
	"os"
	"slices"
	"strings"
)

// methodNames are the ways to be let in, in the order in which they are tried.
var methodNames = [...]string{"publickey", "password", "keyboard-interactive"}

// methods are the ways that the configuration has for a machine. Those that it prefers are all that
// it allows, see PreferredAuthentications in ssh_config(5).
func methods(options settings) []string {
	names := methodNames[:]
	if preferred := options.first("PreferredAuthentications"); preferred != "" {
		names = strings.Split(strings.ToLower(preferred), ",")
	}
	switches := map[string]string{
		"publickey": "PubkeyAuthentication", "password": "PasswordAuthentication",
		"keyboard-interactive": "KbdInteractiveAuthentication",
	}
	var methods []string
	for _, name := range names {
		off := strings.ToLower(options.first(switches[name]))
		if slices.Contains(methodNames[:], name) && off != "no" && off != "false" {
			methods = append(methods, name)
		}
	}
	return methods
}

// unsupported is what the configuration has for a machine that OpenSSH's client can use, and a
// Dialer can't.
type unsupported struct {
	gssapi, hostbased bool
	pkcs11Library     string // the library of PKCS11Provider, "" for none
	controlSocket     string // the socket of a connection that is open already, "" for none
}

func unsupportedOptions(options settings) (b unsupported) {
	b.gssapi = strings.EqualFold(options.first("GSSAPIAuthentication"), "yes")
	b.hostbased = strings.EqualFold(options.first("HostbasedAuthentication"), "yes")
	if library := options.first("PKCS11Provider"); !strings.EqualFold(library, "none") {
		b.pkcs11Library = library
	}
	if socket := options.first("ControlPath"); !strings.EqualFold(socket, "none") {
		if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			b.controlSocket = socket
		}
	}
	return b
}

// explain adds to the reason why nobody was let in by a machine that takes these ways what
// OpenSSH's client might have used.
func (u unsupported) explain(reason error, taken []string) error {
	p, ok := errors.AsType[*Problem](reason)
	if !ok {
		return reason
	}
	var names []string
	more := *p
	if u.gssapi && slices.Contains(taken, "gssapi-with-mic") {
		names = append(names, "Kerberos (GSSAPIAuthentication)")
	}
	if u.hostbased && slices.Contains(taken, "hostbased") {
		names = append(names, "the key of this machine (HostbasedAuthentication)")
	}
	if u.pkcs11Library != "" && slices.Contains(taken, "publickey") {
		names = append(names, "the keys of a card (PKCS11Provider)")
		more.Cure += "; the agent can have those of the card, with `ssh-add -s " + Quote(u.pkcs11Library) + "`"
	}
	if u.controlSocket != "" {
		names = append(names, "the connection that is open already (ControlPath)")
	}
	if len(names) == 0 {
		return reason
	}
	more.Cause += "; ssh itself may use " + strings.Join(names, " and ") + ", which mlfnode can't"
	return &more
}
