package process

import (
	"os"
	"path/filepath"
	"strings"

	"mlfnode/node/executor"

	"golang.org/x/sys/unix"
)

// lookup finds the file of a program as a shell would: a name with a slash is a path relative to
// dir, any other name is searched in the PATH of env. The error is ENOENT, EACCES or the reason why
// a folder of PATH could not be searched.
func lookup(name, dir string, env []string) (string, error) {
	if name == "" {
		return "", unix.ENOENT
	}
	if strings.Contains(name, "/") {
		return absolute(name, dir), nil
	}
	err := error(unix.ENOENT)
	for _, folder := range filepath.SplitList(variable(env, "PATH=")) {
		path := filepath.Join(absolute(folder, dir), name)
		switch e := runnable(path); {
		case e == nil:
			return path, nil
		case e != unix.ENOENT && shortage(e.(unix.Errno)) != "":
			err = e // the program may be there, but this machine can't tell
		case e == unix.EACCES && err == unix.ENOENT:
			err = e
		}
	}
	return "", err
}

// runnable returns nil if path is a regular file that we may execute.
func runnable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil && shortage(err.(unix.Errno)) != "" {
		return err
	} else if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENOENT
	}
	if st.Mode&0o111 == 0 || unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil {
		return unix.EACCES
	}
	return nil
}

func absolute(path, dir string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return filepath.Join(dir, path)
}

// variable returns the value of the variable whose name, with its equals sign, is prefix.
func variable(env []string, prefix string) string {
	for _, kv := range env {
		if strings.HasPrefix(kv, prefix) {
			return kv[len(prefix):]
		}
	}
	return ""
}

// lookupCache remembers the last program that a slot looked up: the trials of a sweep usually run
// the same one.
type lookupCache struct {
	name, dir, path string // what was asked
	file            string // what was found
}

// lookup looks up the program of a in env, the complete environment of the attempt.
func (c *lookupCache) lookup(a *executor.Attempt, env []string) (string, error) {
	name := a.Argv[0]
	if strings.Contains(name, "/") {
		return absolute(name, a.Dir), nil
	}
	path := variable(env, "PATH=")
	if c.file != "" && c.name == name && c.dir == a.Dir && c.path == path {
		if _, err := os.Lstat(c.file); err == nil {
			return c.file, nil
		}
	}
	file, err := lookup(name, a.Dir, env)
	if err == nil {
		*c = lookupCache{name: name, dir: a.Dir, path: path, file: file}
	}
	return file, err
}
