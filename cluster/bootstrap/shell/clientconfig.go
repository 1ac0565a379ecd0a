package shell

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clientConfig asks OpenSSH's client: `ssh -G` prints the options for a machine, after Host, Match,
// Include and all else.
type clientConfig struct {
	program  string
	file     string                   // the file to read, "" for the user's and the machine's
	text     string                   // text of a file to read in their place
	defaults func() (settings, error) // the client's settings without any file
	files    func() (config, error)   // used where the client does not answer

	mu      sync.Mutex
	answers map[Target]func() (settings, error)
}

// askTimeout bounds a question: a Match may run a program.
const askTimeout = 30 * time.Second

// newClientConfig makes the client read the given file, or else those of the user and the machine.
// The client looks for the user's file in the home folder of the system's user database. If HOME is
// another folder, the client gets a file that includes the one there.
func newClientConfig(program, file, home string) *clientConfig {
	c := &clientConfig{program: program, file: file, answers: map[Target]func() (settings, error){}}
	c.defaults = sync.OnceValues(func() (settings, error) { return c.run(Target{Host: "localhost"}, os.DevNull) })
	c.files = sync.OnceValues(func() (config, error) {
		read, err := readConfigFiles(file, home)
		if err != nil {
			return nil, configProblem(file, err)
		}
		return read, nil
	})
	if u, err := user.Current(); file == "" && (err != nil || u.HomeDir != home) {
		c.text = fmt.Sprintf("Include %q\nMatch all\nInclude %s\n", filepath.Join(home, ".ssh", "config"), systemConfig)
	}
	return c
}

// lookup implements config. It leaves out what the client would do without any file. A client that
// does not print that (another program of this name, an old one, or OpenSSH's for a user who is not
// in the user database) is not asked about machines.
func (c *clientConfig) lookup(t Target) (settings, error) {
	defaults, err := c.defaults()
	if err != nil {
		files, err := c.files()
		if err != nil {
			return nil, err
		}
		return files.lookup(t)
	}
	c.mu.Lock()
	ask := c.answers[t]
	if ask == nil {
		ask = sync.OnceValues(func() (settings, error) { return c.withoutDefaults(t, defaults) })
		c.answers[t] = ask
	}
	c.mu.Unlock()
	return ask()
}

// withoutDefaults asks about a machine, and leaves out the names of files that are the defaults.
func (c *clientConfig) withoutDefaults(t Target, defaults settings) (settings, error) {
	file := c.file
	if c.text != "" { // no pipe: the client reads it again for a Match final
		f, err := os.CreateTemp("", "mlfnode-ssh-*")
		if err != nil {
			return nil, configProblem(os.TempDir(), err)
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString(c.text)
		if err = cmp.Or(err, f.Close()); err != nil {
			return nil, configProblem(f.Name(), err)
		}
		file = f.Name()
	}
	s, err := c.run(t, file)
	for _, option := range []string{"identityfile", "userknownhostsfile"} {
		if slices.Equal(s[option], defaults[option]) {
			delete(s, option)
		}
	}
	return s, err
}

func (c *clientConfig) run(t Target, file string) (settings, error) {
	ctx, stop := context.WithTimeout(context.Background(), askTimeout)
	defer stop()
	args := []string{"-G"}
	if file != "" {
		args = append(args, "-F", file)
	}
	if t.User != "" {
		args = append(args, "-l", t.User)
	}
	if t.Port != 0 {
		args = append(args, "-p", strconv.Itoa(t.Port))
	}
	run := exec.CommandContext(ctx, c.program, append(args, "--", t.Host)...)
	stderr := &tail{}
	run.Stderr, run.WaitDelay = stderr, closeDelay
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with what a Match runs
	run.Cancel = func() error { return syscall.Kill(-run.Process.Pid, syscall.SIGKILL) }
	out, err := run.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // what a Match has left running may keep the output open
		said := strings.TrimSpace(stderr.String())
		if ctx.Err() != nil {
			said = fmt.Sprintf("no answer for %v", askTimeout)
		}
		return nil, problemf("fix the file; `ssh -G "+t.Host+"` shows what ssh makes of it",
			"ssh does not take its configuration for %s: %s", t.Host, strings.ReplaceAll(said, "\n", "; "))
	}
	s := settings{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		option, value, _ := strings.Cut(lines.Text(), " ")
		s[option] = append(s[option], value)
	}
	return s, nil
}
