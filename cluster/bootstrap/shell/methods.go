package shell

import (
	"errors"
	"os"
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

// beyond is what the configuration has for a machine that OpenSSH's client can use, and a Dialer can't.
type beyond struct {
	gssapi, hostbased bool
	cards             string // the library of PKCS11Provider, "" for none
	open              string // the socket of a connection that is open already, "" for none
}

func waysBeyond(said settings) (b beyond) {
	b.gssapi = strings.EqualFold(said.first("GSSAPIAuthentication"), "yes")
	b.hostbased = strings.EqualFold(said.first("HostbasedAuthentication"), "yes")
	if library := said.first("PKCS11Provider"); !strings.EqualFold(library, "none") {
		b.cards = library
	}
	if socket := said.first("ControlPath"); !strings.EqualFold(socket, "none") {
		if info, err := os.Stat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			b.open = socket
		}
	}
	return b
}

// explain adds to the reason why nobody was let in by a machine that takes these ways what OpenSSH's client might have used.
func (b beyond) explain(reason error, taken []string) error {
	var p *Problem
	if !errors.As(reason, &p) {
		return reason
	}
	var names []string
	more := *p
	if b.gssapi && slices.Contains(taken, "gssapi-with-mic") {
		names = append(names, "Kerberos (GSSAPIAuthentication)")
	}
	if b.hostbased && slices.Contains(taken, "hostbased") {
		names = append(names, "the key of this machine (HostbasedAuthentication)")
	}
	if b.cards != "" && slices.Contains(taken, "publickey") {
		names = append(names, "the keys of a card (PKCS11Provider)")
		more.Cure += "; the agent can have those of the card, with `ssh-add -s " + Quote(b.cards) + "`"
	}
	if b.open != "" {
		names = append(names, "the connection that is open already (ControlPath)")
	}
	if len(names) == 0 {
		return reason
	}
	more.Cause += "; ssh itself may use " + strings.Join(names, " and ") + ", which mlfnode can't"
	return &more
}
