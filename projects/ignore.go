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
)

// The files whose patterns say what stays out of a bundle. Each counts for the folder that it lies in, and all below.
const (
	ignoreFile    = ".mlfignore"
	gitIgnoreFile = ".gitignore"
)

// rules are the patterns of one ignore file.
type rules struct {
	file     string // as messages name it
	base     string // the folder whose files the patterns are about
	patterns []pattern
}

// cause is the pattern that keeps a file out.
type cause struct {
	*rules
	pattern *pattern
	own     bool // of .mlfignore, which counts for files that git tracks too
}

// chain is a list of rules in order of their precedence, the strongest last.
type chain []*rules

// with adds the ignore file of a folder, if there is one. The slice that it extends may be shared.
func (c chain) with(r *rules) chain {
	if r == nil {
		return c
	}
	return append(c[:len(c):len(c)], r)
}

// decide gives the pattern that says whether a file or folder is ignored, nil when none does.
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

// readRules reads an ignore file; it returns nil without one. Like git, it follows no link in a folder that is packed.
func readRules(at, file, base string) (*rules, error) {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", file, bare(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s can't be read: it is not a regular file", file)
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", file, bare(err))
	}
	return &rules{file: file, base: base, patterns: parseIgnore(text)}, nil
}

// always reports whether a file stays out unless it is named in include: git's own data, and what Python makes again.
func always(name string) bool {
	switch path.Base(name) {
	case ".git", "__pycache__":
		return true
	}
	return strings.HasSuffix(name, ".pyc")
}

// nameSet is a list of patterns in the form of an ignore file that name files, as in include and share.
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

// has reports whether a pattern names the file or folder.
func (s nameSet) has(name string, folder bool) bool { return lastMatch(s, name, folder) != nil }

// hasAll reports whether everything in a folder is named, as by data/**.
func (s nameSet) hasAll(name string) bool {
	return s.has(name, true) || s.has(name+"/\x01", false) && s.has(name+"/\x01/\x01", false)
}

// reaches reports whether a pattern may name something in a folder.
func (s nameSet) reaches(folder string) bool {
	for i := range s {
		p := &s[i]
		if p.base && path.Base(folder) != ".git" {
			return true // at any depth
		}
		if !p.base && (strings.HasPrefix(p.literal, folder+"/") || len(p.tokens) > 0 && strings.HasPrefix(folder+"/", p.literal)) {
			return true
		}
	}
	return false
}

// repository is what git knows of a folder.
type repository struct {
	top     string // absolute
	prefix  string // of names in the walk, seen from the top; empty when the walk starts there
	at      string // the top as the walk names it, for one that lies in the walk
	tracked map[string]bool
	folders map[string]bool // that hold tracked files
	asked   bool
	problem error
}

// name is a name of the walk as the repository has it.
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

// findRepository gives the repository that a folder belongs to, with the rules that count there; nil when there is none. A folder
// that its repository ignores belongs to none, unless git tracks something in it, which is then all that travels.
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
	c, err := r.rules()
	if err != nil || r.prefix == "" {
		return r, c, nil, err
	}
	parts := strings.Split(r.prefix, "/")
	for i := range parts {
		base := strings.Join(parts[:i], "/")
		own, err := readRules(filepath.Join(top, base, gitIgnoreFile), up(len(parts)-i)+gitIgnoreFile, base)
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

func up(n int) string { return strings.Repeat("../", n) }

// rules reads the rules of the repository that lie outside of its files.
func (r *repository) rules() (c chain, err error) {
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

// commonFolder is where git keeps what all work trees share.
func commonFolder(top string) string {
	dir := filepath.Join(top, ".git")
	text, err := os.ReadFile(dir)
	if err != nil {
		return dir // it is a folder
	}
	beside := func(base, at string) string {
		if filepath.IsAbs(at) {
			return at
		}
		return filepath.Join(base, at)
	}
	dir = beside(top, strings.TrimSpace(strings.TrimPrefix(string(text), "gitdir:")))
	if text, err := os.ReadFile(filepath.Join(dir, "commondir")); err == nil {
		dir = beside(dir, strings.TrimSpace(string(text)))
	}
	return dir
}
