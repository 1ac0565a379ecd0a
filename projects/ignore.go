package projects

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mlfnode/grid/problem"
)

// The files whose patterns keep files out of a bundle. Each file applies to the folder that
// contains it and to everything below.
const (
	ignoreFile    = ".mlfignore"
	gitIgnoreFile = ".gitignore"
)

// rules are the patterns of one ignore file.
type rules struct {
	file     string // as messages name it
	base     string // the folder to which the patterns are relative
	patterns []pattern
}

// cause is the pattern that keeps a file out of the bundle.
type cause struct {
	*rules
	pattern *pattern
	own     bool // from .mlfignore, which also applies to files that git tracks
}

// chain is a list of rules in order of precedence, the strongest last.
type chain []*rules

// with adds the ignore file of a folder, if there is one. The slice that it extends may be shared.
func (c chain) with(r *rules) chain {
	if r == nil {
		return c
	}
	return append(c[:len(c):len(c)], r)
}

// decide returns the pattern that decides whether a file or folder is ignored, or nil if none does.
func (c chain) decide(name string, folder bool) (*rules, *pattern) {
	for i := len(c) - 1; i >= 0; i-- {
		r := c[i]
		inside := name
		if r.base != "" {
			var ok bool
			if inside, ok = strings.CutPrefix(name, r.base+"/"); !ok {
				continue
			}
		}
		if p := lastMatch(r.patterns, inside, folder); p != nil {
			return r, p
		}
	}
	return nil, nil
}

// readRules reads an ignore file; it returns nil if there is none. Like git, it follows no link in
// a folder that is packed.
func readRules(at, file, base string) (*rules, error) {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", file, problem.WithoutPath(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s can't be read: it is not a regular file", file)
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", file, problem.WithoutPath(err))
	}
	return &rules{file: file, base: base, patterns: parseIgnore(text)}, nil
}

// nameSet is a list of patterns, in the form of an ignore file, that select files, as in include
// and share.
type nameSet []pattern

func newNameSet(texts []string) nameSet {
	var all nameSet
	for _, text := range texts {
		if p, ok := parsePattern(text); ok {
			all = append(all, p)
		}
	}
	return all
}

// has reports whether a pattern matches the file or folder.
func (s nameSet) has(name string, folder bool) bool { return lastMatch(s, name, folder) != nil }

// reaches reports whether a pattern may match something in a folder.
func (s nameSet) reaches(folder string) bool {
	for i := range s {
		p := &s[i]
		if p.base && path.Base(folder) != ".git" {
			return true // matches at any depth
		}
		if !p.base && (strings.HasPrefix(p.literal, folder+"/") ||
			len(p.tokens) > 0 && strings.HasPrefix(folder+"/", p.literal)) {
			return true
		}
	}
	return false
}

// repository is what git knows about a folder.
type repository struct {
	top     string // absolute
	prefix  string // of names in the walk, relative to top; empty if the walk starts there
	at      string // the top as the walk names it, for a repository inside the walk
	tracked map[string]bool
	folders map[string]bool // folders that hold tracked files
	loaded  bool
	problem error
}

// name converts a name of the walk to the repository's name for the same file.
func (r *repository) name(name string) string {
	switch {
	case r == nil:
		return name
	case r.at != "":
		return strings.TrimPrefix(name, r.at+"/")
	}
	return path.Join(r.prefix, name)
}

// isRepository reports whether a folder is the top of a work tree.
func isRepository(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, ".git"))
	if err != nil {
		return false
	}
	if info.Mode().IsRegular() {
		return true // a submodule or another work tree
	}
	_, err = os.Lstat(filepath.Join(dir, ".git", "HEAD"))
	return err == nil
}

// findRepository returns the repository that a folder belongs to, with the rules that apply there,
// or nil if there is none. A folder that its repository ignores belongs to no repository, unless
// git tracks something in it; then only the tracked files travel.
func findRepository(dir string) (*repository, chain, *cause, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("find %s: %w", dir, err)
	}
	top := abs
	for !isRepository(top) {
		up := filepath.Dir(top)
		if up == top {
			return nil, nil, nil, nil
		}
		top = up
	}
	prefix, err := filepath.Rel(top, abs)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("find %s: %w", dir, err)
	}
	r := &repository{top: top, prefix: filepath.ToSlash(prefix)}
	if r.prefix == "." {
		r.prefix = ""
	}
	c, err := r.readRules()
	if err != nil || r.prefix == "" {
		return r, c, nil, err
	}
	parts := strings.Split(r.prefix, "/")
	for i := range parts {
		base := strings.Join(parts[:i], "/")
		own, err := readRules(filepath.Join(top, base, gitIgnoreFile),
			strings.Repeat("../", len(parts)-i)+gitIgnoreFile, base)
		if err != nil {
			return nil, nil, nil, err
		}
		c = c.with(own)
		rules, p := c.decide(strings.Join(parts[:i+1], "/"), true)
		switch {
		case p == nil || p.negative:
		case r.tracksIn(""):
			return r, c, &cause{rules: rules, pattern: p}, nil
		default:
			return nil, nil, nil, nil
		}
	}
	return r, c, nil, nil
}

// readRules reads those rules of the repository that are not among its files.
func (r *repository) readRules() (c chain, err error) {
	for _, file := range []string{globalIgnore(r.top), filepath.Join(commonFolder(r.top), "info", "exclude")} {
		if file == "" {
			continue
		}
		real, err := filepath.EvalSymlinks(file)
		if err != nil {
			continue
		}
		own, err := readRules(real, file, "")
		if err != nil {
			return nil, err
		}
		if own != nil && strings.HasPrefix(file, r.top+"/") {
			own.file = strings.TrimPrefix(file, r.top+"/")
		}
		c = c.with(own)
	}
	return c, nil
}

// commonFolder returns the folder where git keeps what all work trees share.
func commonFolder(top string) string {
	dir := filepath.Join(top, ".git")
	text, err := os.ReadFile(dir)
	if err != nil {
		return dir // a folder, not a file that refers to one
	}
	resolve := func(base, at string) string {
		if filepath.IsAbs(at) {
			return at
		}
		return filepath.Join(base, at)
	}
	dir = resolve(top, strings.TrimSpace(strings.TrimPrefix(string(text), "gitdir:")))
	if text, err := os.ReadFile(filepath.Join(dir, "commondir")); err == nil {
		dir = resolve(dir, strings.TrimSpace(string(text)))
	}
	return dir
}
