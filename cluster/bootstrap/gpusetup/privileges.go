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

// rebootProgram reboots the machine after its answer has been sent.
const rebootProgram = "systemctl reboot --no-block || shutdown -r now\n"

// program returns a program with the variables that it reads set before it.
func (o Options) program(body string, vars map[string]string) string {
	var b strings.Builder
	if o.hooks.prelude != "" {
		fmt.Fprintln(&b, o.hooks.prelude)
	}
	all := map[string]string{"ROOT": o.hooks.root, "SITE": o.Site, "SUDO": o.Sudo, "PAUSE": o.hooks.pause}
	maps.Copy(all, vars)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s=%s\n", name, shell.Quote(all[name]))
	}
	return b.String() + body
}

// sudo returns what makes a program run as root, "" for a user who is root.
func (s *setup) sudo() string {
	if s.h.uid == "0" {
		return ""
	}
	return s.o.Sudo
}

// runAs returns a program that runs another one by the command as, or that one itself if as is
// empty.
func (s *setup) runAs(as, program string) string {
	if as == "" {
		return program
	}
	start := as + " /bin/sh -c " + shell.Quote(program)
	if s.o.hooks.prelude != "" {
		return s.o.hooks.prelude + "\n" + start
	}
	return start
}

// exitError distinguishes a program that failed from a machine that was lost.
func exitError(err error) (*shell.ExitError, bool) {
	return errors.AsType[*shell.ExitError](err)
}
