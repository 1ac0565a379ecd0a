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
		Cause: fmt.Sprintf(
			"the host key of %s is not the known one: it shows %s, and %s:%d says %s. The machine was reinstalled, or somebody "+
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
	return problemf("give the machine a new host key; do not use it before",
		"the host key of %s is revoked by %s:%d, %s", r, line.Filename, line.Line, fingerprint(key))
}

func rememberProblem(file string, err error) *Problem {
	return problemf("make the file writable", "the host key could not be added to %s (%v)", file, unwrapErrno(err))
}

// networkProblem says why a machine could not be connected to.
func networkProblem(r route, err error) *Problem {
	dns, unresolved := errors.AsType[*net.DNSError](err)
	network, ofNetwork := errors.AsType[net.Error](err)
	switch {
	case unresolved && dns.IsNotFound:
		return problemf("correct the name, or add it to ~/.ssh/config with a HostName",
			"there is no machine %s, the name %s was not found", r.name, r.host)
	case unresolved:
		return problemf("check the network and its name server",
			"the name %s could not be looked up (%s)", r.host, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return problemf("start the ssh server there, or give the right port",
			"%s refuses connections on port %d", r.host, r.port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return problemf("check the network and whether the machine is on", "there is no route to %s", r)
	case ofNetwork && network.Timeout():
		return problemf("check that the machine is on and that no firewall drops the port",
			"%s did not answer on port %d within %v", r.host, r.port, r.connectTimeout)
	}
	return problemf("check the network", "%s cannot be connected to (%v)", r, unwrapErrno(err))
}

// unwrapErrno takes the repeated frames off an error of the system: `open /a: permission denied`
// names what the text names already.
func unwrapErrno(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
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
	return problemf(fmt.Sprintf("run `ssh-copy-id%s` once, or name the key with -i or an IdentityFile in ~/.ssh/config",
		strings.TrimPrefix(r.command(), "ssh")),
		"%s lets %s in with none of the keys here, %s; it takes %s", r, r.user, what, strings.Join(taken, ", "))
}

func methodsProblem(r route, taken []string) *Problem {
	ours := "none"
	if len(r.methods) > 0 {
		ours = strings.Join(r.methods, ", ")
	}
	return problemf("fix PreferredAuthentications, or the Authentication option that says no, in ~/.ssh/config",
		"%s takes %s, and of the ways to be let in ssh's configuration allows %s", r, strings.Join(taken, ", "), ours)
}

// keyFileProblem says what is wrong with a file that should hold a private key.
func keyFileProblem(file string, err error) *Problem {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &Problem{Cause: "there is no key file " + file,
			Cure: "correct the name, or make a key with `ssh-keygen -f " + Quote(file) + "`"}
	case errors.As(err, new(syscall.Errno)):
		return problemf("let yourself read it with `chmod u+r "+Quote(file)+"`",
			"the key file %s cannot be read (%v)", file, unwrapErrno(err))
	}
	return &Problem{Cause: file + " contains no private key that ssh knows",
		Cure: "name the private half of a key, as ssh-keygen makes it"}
}

func jumpProblem(r, jump route, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return problemf(p.Cure, "the jump host %s of %s cannot be passed, %s", jump.name, r.name, p.Cause)
	}
	return problemf(fmt.Sprintf("see what `%s` says", r.command()),
		"the jump host %s cannot reach %s (%v)", jump.name, r.address(), err)
}

func proxyProblem(r route, said string) *Problem {
	return problemf(fmt.Sprintf("fix it in ~/.ssh/config; see what `%s` says", r.command()),
		"the ProxyCommand of %s gives no connection, it said %q: %s", r.name, said, r.proxy)
}

func lostProblem(r route) *Problem {
	return problemf("check the machine and the network, then try again", "the connection to %s was lost", r)
}

func configProblem(file string, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &Problem{Cause: "there is no configuration of ssh " + file, Cure: "correct the name"}
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		file = path.Path // the user's own, when none was named
	}
	return problemf("make it readable", "the configuration of ssh %s cannot be read (%v)", file, unwrapErrno(err))
}
