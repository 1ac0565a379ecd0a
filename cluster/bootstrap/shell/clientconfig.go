package shell

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clientConfig asks OpenSSH's client: `ssh -G` prints the options for a machine, after Host, Match, Include and all else.
type clientConfig struct {
	program string
	args    []string // that say which files count
	input   string   // for its standard input

	mu       sync.Mutex
	asked    map[Target]settings
	defaults settings // without any file, once a machine was asked about
}

// askTime bounds a question: a Match may run a program.
const askTime = 30 * time.Second

// newClientConfig has the client read the file named, or else the user's and the machine's. The client looks for the user's in the home
// folder that the system has for him: where HOME names another one, it is told.
func newClientConfig(program, file, home string) *clientConfig {
	c := &clientConfig{program: program, asked: map[Target]settings{}}
	u, err := user.Current()
	switch {
	case file != "":
		c.args = []string{"-F", file}
	case err != nil || u.HomeDir != home:
		c.args = []string{"-F", "/dev/stdin"}
		c.input = fmt.Sprintf("Include %q\nMatch all\nInclude %s\n", filepath.Join(home, ".ssh", "config"), systemConfig)
	}
	return c
}

// about implements config. What the client would do without any file is left out.
func (c *clientConfig) about(t Target) (settings, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.asked[t]; ok {
		return s, nil
	}
	s, err := c.ask(t, c.args)
	if err == nil && c.defaults == nil {
		c.defaults, err = c.ask(Target{Host: "localhost"}, []string{"-F", "/dev/null"})
	}
	if err != nil {
		return nil, err
	}
	for _, option := range []string{"identityfile", "userknownhostsfile"} {
		if slices.Equal(s[option], c.defaults[option]) {
			delete(s, option)
		}
	}
	c.asked[t] = s
	return s, nil
}

func (c *clientConfig) ask(t Target, args []string) (settings, error) {
	ctx, stop := context.WithTimeout(context.Background(), askTime)
	defer stop()
	args = append([]string{"-G"}, args...)
	if t.User != "" {
		args = append(args, "-l", t.User)
	}
	if t.Port != 0 {
		args = append(args, "-p", strconv.Itoa(t.Port))
	}
	run := exec.CommandContext(ctx, c.program, append(args, "--", t.Host)...)
	complaints := &tail{}
	run.Stdin, run.Stderr, run.WaitDelay = strings.NewReader(c.input), complaints, closeDelay
	out, err := run.Output()
	if err != nil {
		said := strings.TrimSpace(complaints.String())
		if ctx.Err() != nil {
			said = fmt.Sprintf("no answer for %v", askTime)
		}
		return nil, &Problem{Cause: fmt.Sprintf("ssh does not take its configuration for %s: %s", t.Host, strings.ReplaceAll(said, "\n", "; ")),
			Cure: "mend the file; `ssh -G " + t.Host + "` shows what ssh makes of it"}
	}
	s := settings{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		option, value, _ := strings.Cut(lines.Text(), " ")
		s[option] = append(s[option], value)
	}
	return s, nil
}
