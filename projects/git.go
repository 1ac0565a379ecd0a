package projects

import (
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// git runs the git program in a folder, whoever owns the repository. The command must be one that
// runs no program, whatever the repository's settings are.
func git(dir string, args ...string) (string, error) {
	return gitIn(context.Background(), dir, append([]string{"-c", "safe.directory=*"}, args...)...)
}

// gitIn runs git until ctx ends. The command takes no locks that could block others, and never
// prompts the user.
func gitIn(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false"}, args...)...)
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	// The processes that git starts, such as a filter, end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX": // set by a hook, for another repository
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	out, err := cmd.Output()
	return string(out), err
}

// globalIgnore returns the file of ignore patterns for all of a user's repositories:
// core.excludesFile, or its default.
func globalIgnore(top string) string {
	if out, err := git(top, "config", "--type=path", "--get", "core.excludesFile"); err == nil {
		file := strings.TrimSuffix(out, "\n")
		if file != "" && !filepath.IsAbs(file) {
			file = filepath.Join(top, file)
		}
		return file
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "git", "ignore")
}

// tracks reports whether git tracks a file of the walk. Git is asked on the first call only, since
// most folders need no answer.
func (r *repository) tracks(name string) bool {
	return r != nil && r.load() && r.tracked[r.name(name)]
}

// tracksIn reports whether git tracks a file in a folder of the walk.
func (r *repository) tracksIn(folder string) bool {
	return r != nil && r.load() && r.folders[r.name(folder)]
}

// load asks git for the files that it tracks, unless it has been asked already. It reports whether
// git has listed them.
func (r *repository) load() bool {
	if r.loaded {
		return r.problem == nil
	}
	r.loaded = true
	out, err := git(filepath.Join(r.top, r.prefix), "ls-files", "-z", "--cached", "--full-name", "--", ".")
	if err != nil {
		r.problem = err
		return false
	}
	r.tracked, r.folders = map[string]bool{}, map[string]bool{}
	for name := range strings.SplitSeq(out, "\x00") {
		if name == "" {
			continue
		}
		r.tracked[name] = true
		for dir := path.Dir(name); dir != "." && !r.folders[dir]; dir = path.Dir(dir) {
			r.folders[dir] = true
		}
		r.folders[""] = true
	}
	return true
}
