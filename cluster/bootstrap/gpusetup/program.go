package gpusetup

import (
	_ "embed" // the programs that run on the machine
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mlfnode/cluster/bootstrap/shell"
)

// The programs for /bin/sh.
var (
	//go:embed probe.sh
	probeProgram string
	//go:embed leftovers.sh
	leftoversProgram string
	//go:embed install.sh
	installProgram string
	//go:embed configure.sh
	configureProgram string
	//go:embed cdi.sh
	cdiProgram string
	//go:embed smoke.sh
	smokeProgram string
)

// rebootProgram lets the answer reach us before the machine goes down.
const rebootProgram = "systemctl reboot --no-block || shutdown -r now\n"

// program puts the variables that a program reads before it.
func (o Options) program(body string, vars map[string]string) string {
	var b strings.Builder
	if o.place.prelude != "" {
		fmt.Fprintln(&b, o.place.prelude)
	}
	all := map[string]string{"ROOT": o.place.root, "SITE": o.Site, "SUDO": o.Sudo, "PAUSE": o.place.pause}
	maps.Copy(all, vars)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s=%s\n", name, shell.Quote(all[name]))
	}
	return b.String() + body
}

// as is what makes a program run as root, "" for a user who is root.
func (s *setup) as() string {
	if s.h.uid == "0" {
		return ""
	}
	return s.o.Sudo
}

// by gives a program that has another one run with the rights that as gives it.
func (s *setup) by(as, program string) string {
	if as == "" {
		return program
	}
	start := as + " /bin/sh -c " + shell.Quote(program)
	if s.o.place.prelude != "" {
		return s.o.place.prelude + "\n" + start
	}
	return start
}

// asExit tells a program that ended badly from a machine that was lost.
func asExit(err error) (*shell.ExitError, bool) {
	var exit *shell.ExitError
	ok := errors.As(err, &exit)
	return exit, ok
}
