package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func changedProblem(r route, key ssh.PublicKey, want []knownhosts.KnownKey) *Problem {
	w := want[0]
	if i := slices.IndexFunc(want, func(k knownhosts.KnownKey) bool { return k.Key.Type() == key.Type() }); i >= 0 {
		w = want[i] // the line that ought to match
	}
	return &Problem{
		Cause: fmt.Sprintf("the host key of %s is not the known one: it shows %s, and %s:%d says %s. The machine was reinstalled, or somebody "+
			"intercepts the connection", r, fingerprint(key), w.Filename, w.Line, fingerprint(w.Key)),
		Cure: fmt.Sprintf("if it was reinstalled, forget the old key with `ssh-keygen -R %s -f %s` and try again",
			Quote(knownhosts.Normalize(r.knownHostsName())), Quote(w.Filename)),
	}
}

// problemf returns a problem with a formatted cause.
func problemf(cure, cause string, args ...any) *Problem {
	return &Problem{Cause: fmt.Sprintf(cause, args...), Cure: cure}
}

func revokedProblem(r route, key ssh.PublicKey, line knownhosts.KnownKey) *Problem {
	return &Problem{Cause: fmt.Sprintf("the host key of %s is revoked by %s:%d, %s", r, line.Filename, line.Line, fingerprint(key)),
		Cure: "give the machine a new host key; do not use it before"}
}

func rememberProblem(file string, err error) *Problem {
	return &Problem{Cause: fmt.Sprintf("the host key could not be added to %s (%v)", file, unwrapErrno(err)),
		Cure: "make the file writable"}
}

// networkProblem says why a machine could not be connected to.
func networkProblem(r route, err error) *Problem {
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Problem{Cause: fmt.Sprintf("there is no machine %s, the name %s was not found", r.name, r.host),
			Cure: "correct the name, or add it to ~/.ssh/config with a HostName"}
	case errors.As(err, &dns):
		return &Problem{Cause: fmt.Sprintf("the name %s could not be looked up (%s)", r.host, dns.Err), Cure: "check the network and its name server"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Problem{Cause: fmt.Sprintf("%s refuses connections on port %d", r.host, r.port),
			Cure: "start the ssh server there, or give the right port"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &Problem{Cause: fmt.Sprintf("there is no route to %s", r), Cure: "check the network and whether the machine is on"}
	case errors.As(err, &network) && network.Timeout():
		return &Problem{Cause: fmt.Sprintf("%s did not answer on port %d within %v", r.host, r.port, r.connectTimeout),
			Cure: "check that the machine is on and that no firewall drops the port"}
	}
	return &Problem{Cause: fmt.Sprintf("%s cannot be connected to (%v)", r, unwrapErrno(err)), Cure: "check the network"}
}

// unwrapErrno takes the repeated frames off an error of the system: `open /a: permission denied`
// names what the text names already.
func unwrapErrno(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func keysProblem(r route, tried []string, left int, taken []string) *Problem {
	what := "no key was there to try"
	if len(tried) > 0 {
		what = "tried " + strings.Join(tried, ", ")
	}
	if left > 0 {
		what += fmt.Sprintf(" and left out %d more", left)
	}
	return &Problem{Cause: fmt.Sprintf("%s lets %s in with none of the keys here, %s; it takes %s", r, r.user, what, strings.Join(taken, ", ")),
		Cure: fmt.Sprintf("run `ssh-copy-id%s` once, or name the key with -i or an IdentityFile in ~/.ssh/config", strings.TrimPrefix(r.command(), "ssh"))}
}

func methodsProblem(r route, taken []string) *Problem {
	ours := "none"
	if len(r.methods) > 0 {
		ours = strings.Join(r.methods, ", ")
	}
	return &Problem{Cause: fmt.Sprintf("%s takes %s, and of the ways to be let in ssh's configuration allows %s", r, strings.Join(taken, ", "), ours),
		Cure: "fix PreferredAuthentications, or the Authentication option that says no, in ~/.ssh/config"}
}

// keyFileProblem says what is wrong with a file that should hold a private key.
func keyFileProblem(file string, err error) *Problem {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &Problem{Cause: "there is no key file " + file, Cure: "correct the name, or make a key with `ssh-keygen -f " + Quote(file) + "`"}
	case errors.As(err, new(syscall.Errno)):
		return &Problem{Cause: fmt.Sprintf("the key file %s cannot be read (%v)", file, unwrapErrno(err)), Cure: "let yourself read it with `chmod u+r " + Quote(file) + "`"}
	}
	return &Problem{Cause: file + " contains no private key that ssh knows", Cure: "name the private half of a key, as ssh-keygen makes it"}
}

func jumpProblem(r, jump route, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return &Problem{Cause: fmt.Sprintf("the jump host %s of %s cannot be passed, %s", jump.name, r.name, p.Cause), Cure: p.Cure}
	}
	return &Problem{Cause: fmt.Sprintf("the jump host %s cannot reach %s (%v)", jump.name, r.address(), err),
		Cure: fmt.Sprintf("see what `%s` says", r.command())}
}

func proxyProblem(r route, said string) *Problem {
	return &Problem{Cause: fmt.Sprintf("the ProxyCommand of %s gives no connection, it said %q: %s", r.name, said, r.proxy),
		Cure: fmt.Sprintf("fix it in ~/.ssh/config; see what `%s` says", r.command())}
}

func lostProblem(r route) *Problem {
	return &Problem{Cause: fmt.Sprintf("the connection to %s was lost", r), Cure: "check the machine and the network, then try again"}
}

func configProblem(file string, err error) *Problem {
	var p *Problem
	var path *fs.PathError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, fs.ErrNotExist):
		return &Problem{Cause: "there is no configuration of ssh " + file, Cure: "correct the name"}
	case errors.As(err, &path):
		file = path.Path // the user's own, when none was named
	}
	return &Problem{Cause: fmt.Sprintf("the configuration of ssh %s cannot be read (%v)", file, unwrapErrno(err)), Cure: "make it readable"}
}
