package projects

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
	"mlfnode/grid/problem"
)

// ListOptions say what belongs to a project's files in addition to what ignore files say.
type ListOptions struct {
	Except  []string // folders that stay out, at any depth
	Include []string // patterns of files that travel although they are ignored
	Share   []string // patterns of what trials see in place, and paths outside the project
	Lenient bool     // leave out what can't be packed instead of refusing it
	Setup   bool     // a setup step may create what Share names
	Cluster bool     // trials run on other machines, which may have what this one lacks
}

// Files are the files of a project that travel, and what is left out.
type Files struct {
	Count int         // regular files
	Bytes int64       // the size of those files
	Left  []Left      // what is left out, in order of names
	Links []grid.Link // links that lead outside, which trials see in place
	Notes []string    // what else is worth knowing, as full sentences
	dir   string      // the folder of the files
	items []item      // in order of names
	kinds map[string]fs.FileMode
}

// ByDefault is the reason given for leaving out git's own data and files that Python generates
// again.
const ByDefault = "by default"

// Left is a file or folder that does not travel.
type Left struct {
	Name  string // a folder's ends with a slash
	Bytes int64
	More  bool   // it is larger than Bytes, since not all of it was counted
	Why   string // the ignore file that names it, or what kind of thing it is
	Rule  string // the pattern and its line; empty when no ignore file names it
}

// List finds which files of a folder travel to the workers. In a git repository the answer is
// git's: the files that it tracks, and those that no ignore file names. The patterns of .mlfignore
// come on top of git's, and options.Include on top of both.
func List(dir string, o ListOptions) (*Files, error) {
	if real, err := filepath.EvalSymlinks(dir); err == nil { // a walk does not follow a link, not even at its root
		dir = real
	}
	dir, err := filepath.Abs(dir) // links that lead outside are kept as absolute paths
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	l := &lister{
		dir: dir, o: o, include: newNameSet(o.Include), share: newNameSet(SharePatterns(o.Share)), budget: maxCounted,
		files: &Files{dir: dir, kinds: map[string]fs.FileMode{}},
	}
	if err := l.outside(); err != nil {
		return nil, err
	}
	r, c, out, err := findRepository(dir)
	if err != nil {
		return nil, err
	}
	if err := l.folder("", scope{repository: r, rules: c, out: out}); err != nil {
		return nil, err
	}
	f := l.files
	slices.SortFunc(f.items, func(a, b item) int { return strings.Compare(a.name, b.name) })
	slices.SortFunc(f.Left, func(a, b Left) int { return strings.Compare(a.Name, b.Name) })
	for i := range f.items {
		f.kinds[f.items[i].name] = f.items[i].info.Mode()
		if f.items[i].info.Mode().IsRegular() {
			f.Count++
			f.Bytes += f.items[i].info.Size()
		}
	}
	l.noteUnmatched("include", l.include)
	if !o.Setup {
		l.noteUnmatched("share", l.share)
	}
	if r != nil && r.problem != nil {
		l.addNote("git could not list the files that it tracks, so tracked files that are ignored are left out: %v",
			r.problem)
	}
	return f, nil
}

// Has reports whether a file, folder or link with this name travels.
func (f *Files) Has(name string) bool {
	name = path.Clean(filepath.ToSlash(name))
	if _, ok := f.kinds[name]; ok {
		return true
	}
	return slices.ContainsFunc(f.Links,
		func(l grid.Link) bool { return l.Path == name || strings.HasPrefix(name, l.Path+"/") })
}

// LeftOut returns the entry that is left out and contains the name, or nil if the name does not
// travel for another reason.
func (f *Files) LeftOut(name string) *Left {
	name = path.Clean(filepath.ToSlash(name))
	for i := range f.Left {
		l := &f.Left[i]
		if name == strings.TrimSuffix(l.Name, "/") ||
			strings.HasSuffix(l.Name, "/") && strings.HasPrefix(name, l.Name) {
			return l
		}
	}
	return nil
}

// lister walks a project.
type lister struct {
	dir     string
	o       ListOptions
	include nameSet
	share   nameSet
	roots   []string // absolute paths named by share
	budget  int      // how many more of the files that stay out are counted
	files   *Files
}

// scope is what applies to the files of a folder.
type scope struct {
	*repository
	rules chain  // those of the repository
	own   chain  // those of .mlfignore
	out   *cause // why the folder itself is left out; then only what git tracks and what is included travels
}

// maxCounted bounds the files that are examined only to report how much is left out.
const maxCounted = 20_000

func (l *lister) outside() error {
	for _, s := range l.o.Share {
		if !isOutside(s) {
			continue
		}
		if !filepath.IsAbs(s) {
			s = filepath.Join(l.dir, s)
		}
		if _, err := os.Stat(s); err != nil && !l.o.Cluster {
			return fmt.Errorf("share names %s, which can't be read: %w; correct the path", s, problem.WithoutPath(err))
		} else if err != nil {
			l.addNote("share names %s, which this machine can't read (%v); trials run on nodes that can", s,
				problem.WithoutPath(err))
		}
		l.roots = append(l.roots, filepath.Clean(s))
		l.files.Links = append(l.files.Links, grid.Link{To: filepath.Clean(s)})
	}
	return nil
}

func (l *lister) addNote(format string, args ...any) {
	l.files.Notes = append(l.files.Notes, fmt.Sprintf(format, args...))
}

// noteUnmatched reports the patterns that match no file, folder or link of the project.
func (l *lister) noteUnmatched(what string, patterns nameSet) {
	f := l.files
	for i := range patterns {
		p := &patterns[i]
		if !slices.ContainsFunc(f.items, func(it item) bool { return p.matches(it.name, it.info.IsDir()) }) &&
			!slices.ContainsFunc(f.Links, func(k grid.Link) bool { return p.matches(k.Path, true) }) &&
			!slices.ContainsFunc(f.Left, func(x Left) bool {
				name, folder := strings.CutSuffix(x.Name, "/")
				return p.matches(name, folder)
			}) {
			l.addNote("%s has %q, which matches no file of the project", what, p.text)
		}
	}
}

// folder lists a folder of the walk.
func (l *lister) folder(dir string, s scope) error {
	at := filepath.Join(l.dir, dir)
	if dir != "" && isRepository(at) { // a repository, whose files are its own
		s.repository = &repository{top: at, at: dir}
		var err error
		if s.rules, err = s.repository.readRules(); err != nil {
			return err
		}
	}
	for _, file := range []string{gitIgnoreFile, ignoreFile} {
		name := path.Join(dir, file)
		base := dir
		if file == gitIgnoreFile && s.repository != nil && s.at != "" && dir == s.at {
			base = "" // the top of a repository inside the walk
		} else if file == gitIgnoreFile {
			base = s.name(dir)
		}
		read, err := readRules(filepath.Join(at, file), name, base)
		switch {
		case err != nil:
			return err
		case file == gitIgnoreFile:
			s.rules = s.rules.with(read)
		default:
			s.own = s.own.with(read)
		}
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		if l.o.Lenient && dir != "" {
			l.leave(dir, true, "it can't be read", "")
			return nil
		}
		return unreadable(cmp.Or(dir, l.dir), dir != "", err)
	}
	for _, e := range entries {
		if err := l.entry(path.Join(dir, e.Name()), e, s); err != nil {
			return err
		}
	}
	return nil
}

func unreadable(name string, named bool, err error) error {
	if !named || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s can't be read: %w", name, problem.WithoutPath(err))
	}
	return fmt.Errorf("%s can't be read: %w; name it in %s if trials don't need it", name, problem.WithoutPath(err),
		ignoreFile)
}

func (l *lister) entry(name string, d fs.DirEntry, s scope) error {
	if d.IsDir() && slices.ContainsFunc(l.o.Except,
		func(e string) bool { return sameFolder(filepath.Join(l.dir, name), e) }) {
		return nil
	}
	s.out = l.judge(name, d.IsDir(), s)
	if !d.IsDir() {
		if s.out != nil {
			l.leaveFor(name, d, s.out)
			return nil
		}
		return l.add(name, d)
	}
	if l.include.has(name, true) {
		return l.everything(name, d)
	}
	// Something in it may be included or, unless .mlfignore names the folder, be tracked by git. A
	// folder that git tracks itself is a submodule.
	if s.out != nil && !l.include.reaches(name) && (s.out.own || !s.tracks(name) && !s.tracksIn(name)) {
		l.leaveFor(name, d, s.out)
		return nil
	}
	items, left := len(l.files.items), len(l.files.Left)
	if err := l.add(name, d); err != nil {
		return err
	}
	if len(l.files.items) == items { // everything in it was left out
		return nil
	}
	if err := l.folder(name, s); err != nil {
		return err
	}
	if len(l.files.items) > items+1 || len(l.files.Left) == left {
		return nil
	}
	// Nothing in it travels. A folder that hides itself, as virtual environments and caches do, is
	// left out as a whole.
	hidden := l.files.Left[left].Why
	if s.out != nil || slices.ContainsFunc(l.files.Left[left:],
		func(x Left) bool { return x.Name == name+"/"+gitIgnoreFile && x.Why == x.Name }) {
		l.files.items = l.files.items[:items]
		one := Left{Name: name + "/", Why: hidden, Rule: l.files.Left[left].Rule}
		for _, x := range l.files.Left[left:] {
			one.Bytes += x.Bytes
			one.More = one.More || x.More
		}
		l.files.Left = append(l.files.Left[:left], one)
	}
	return nil
}

// judge returns the reason why a file or folder stays out, or nil if it travels. s is the scope of
// the folder that contains it.
func (l *lister) judge(name string, folder bool, s scope) *cause {
	if l.include.has(name, folder) {
		return nil
	}
	out := s.out
	if out == nil || !out.own {
		rules, p := s.own.decide(name, folder)
		switch {
		case p != nil && !p.negative:
			return &cause{rules: rules, pattern: p, own: true}
		case p != nil && out == nil:
			return nil
		}
	}
	if out == nil {
		if rules, p := s.rules.decide(s.name(name), folder); p != nil && !p.negative {
			out = &cause{rules: rules, pattern: p}
		} else if base := path.Base(name); base == ".git" || base == "__pycache__" || strings.HasSuffix(name, ".pyc") {
			out = &cause{} // by default
		}
	}
	if out != nil && !out.own && !folder && s.tracks(name) {
		return nil
	}
	return out
}

// everything lists an included folder with everything in it.
func (l *lister) everything(name string, d fs.DirEntry) error {
	items := len(l.files.items)
	if err := l.add(name, d); err != nil || len(l.files.items) == items {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(l.dir, name))
	if err != nil {
		return unreadable(name, true, err)
	}
	for _, e := range entries {
		inside := path.Join(name, e.Name())
		if e.IsDir() {
			err = l.everything(inside, e)
		} else {
			err = l.add(inside, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add lists one file, folder or link after checking that a bundle can hold it.
func (l *lister) add(name string, d fs.DirEntry) error {
	it, why, err := l.examine(name, d)
	switch {
	case err != nil && l.o.Lenient:
		l.leave(name, d.IsDir(), why, "")
		return nil
	case err != nil:
		return err
	case why != "":
		l.leave(name, d.IsDir(), why, "")
		return nil
	case it == nil:
		return nil
	}
	if len(l.files.items) >= maxEntries {
		return l.tooMany()
	}
	l.files.items = append(l.files.items, *it)
	return nil
}

// examine returns nothing for a shared link that leads outside, a reason for what is left out in
// any case, and an error with a short reason for what a bundle can't hold.
func (l *lister) examine(name string, d fs.DirEntry) (*item, string, error) {
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsRune(name, '\\') {
		return nil, "its name", fmt.Errorf("the file name %q has characters that not every machine supports; rename "+
			"it, or name it in %s", name, ignoreFile)
	}
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil // removed since the folder was read
	}
	if err != nil {
		return nil, "it can't be read", unreadable(name, true, err)
	}
	it := &item{name: name, info: info}
	if info.IsDir() || info.Mode().IsRegular() {
		return it, "", nil
	}
	switch info.Mode().Type() {
	case fs.ModeSymlink:
	case fs.ModeSocket:
		return nil, "a socket", nil
	case fs.ModeNamedPipe:
		return nil, "a pipe", nil
	default:
		return nil, "a device", nil
	}
	it.link, err = os.Readlink(filepath.Join(l.dir, name))
	if err != nil {
		return nil, "it can't be read", unreadable(name, true, err)
	}
	if l.shares(it) {
		return nil, "", nil
	}
	const outside = "a link to outside"
	switch {
	case !staysInside(name, it.link):
		return nil, outside, fmt.Errorf("the link %s points to %s, outside the project; copy what it points to, "+
			"name the link in share if every node has what it points to, or name it in %s", name, it.link, ignoreFile)
	case turnsBack(it.link):
		return nil, outside, fmt.Errorf("the link %s points to %s, and what '..' means there depends on the links "+
			"before it; write it without '..', or name it in %s", name, it.link, ignoreFile)
	}
	return it, "", nil
}

// shares reports whether a link leads outside to something that share names, and if so records it
// for the trials.
func (l *lister) shares(it *item) bool {
	if staysInside(it.name, it.link) {
		return false
	}
	to := it.link
	if !filepath.IsAbs(to) {
		folder, err := filepath.EvalSymlinks(filepath.Dir(filepath.Join(l.dir, it.name)))
		if err != nil {
			return false
		}
		to = filepath.Join(folder, to)
	}
	to = filepath.Clean(to)
	named := l.share.has(it.name, true) || slices.ContainsFunc(l.roots, func(root string) bool {
		return to == root || strings.HasPrefix(to, strings.TrimSuffix(root, "/")+"/")
	})
	for folder := path.Dir(it.name); !named && folder != "."; folder = path.Dir(folder) {
		named = l.share.has(folder, true)
	}
	if named {
		l.files.Links = append(l.files.Links, grid.Link{Path: it.name, To: to})
	}
	return named
}

// staysInside reports whether a link that does not turn back leads to something in the project.
func staysInside(name, link string) bool {
	if filepath.IsAbs(link) {
		return false
	}
	return filepath.IsLocal(filepath.Join(filepath.Dir(name), link))
}

// turnsBack reports whether a link goes up after a name, as in a/../b. The text alone does not say
// where that leads, because the name may be a link too.
func turnsBack(link string) bool {
	down := false
	for part := range strings.SplitSeq(link, "/") {
		if part == ".." && down {
			return true
		}
		down = down || part != ".." && part != "." && part != ""
	}
	return false
}

func (l *lister) leaveFor(name string, d fs.DirEntry, out *cause) {
	if out.rules == nil {
		l.leave(name, d.IsDir(), ByDefault, "")
		return
	}
	l.leave(name, d.IsDir(), out.file, fmt.Sprintf("%q in line %d", out.pattern.text, out.pattern.line))
}

// leave records what stays out.
func (l *lister) leave(name string, folder bool, why, rule string) {
	left := Left{Name: name, Why: why, Rule: rule}
	if folder {
		left.Name += "/"
	}
	_ = filepath.WalkDir(filepath.Join(l.dir, name), func(_ string, d fs.DirEntry, err error) error {
		if l.budget--; l.budget < 0 {
			left.More = folder
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			left.Bytes += info.Size()
		}
		return nil
	})
	l.files.Left = append(l.files.Left, left)
}

func (l *lister) tooMany() error {
	counts, most := map[string]int{}, ""
	for i := range l.files.items {
		first, _, _ := strings.Cut(l.files.items[i].name, "/")
		if counts[first]++; counts[first] > counts[most] {
			most = first
		}
	}
	return fmt.Errorf("the project %s has more than %d files, most of them in %s; name what is not needed in %s",
		l.dir, maxEntries, most, ignoreFile)
}

// CheckSize refuses files that exceed what a bundle may hold, and names the largest.
func (f *Files) CheckSize(limit int64) error {
	if f.Bytes <= limit {
		return nil
	}
	files := slices.DeleteFunc(slices.Clone(f.items), func(it item) bool { return !it.info.Mode().IsRegular() })
	slices.SortStableFunc(files, func(a, b item) int { return cmp.Compare(b.info.Size(), a.info.Size()) })
	var largest []string
	for _, it := range files[:min(3, len(files))] {
		largest = append(largest, fmt.Sprintf("%s (%s)", it.name, humanize.IBytes(uint64(it.info.Size()))))
	}
	size, most := humanize.IBytes(uint64(f.Bytes)), humanize.IBytes(uint64(limit))
	if size == most {
		size, most = fmt.Sprint(f.Bytes, " bytes"), fmt.Sprint(limit, " bytes")
	}
	return fmt.Errorf("the project's files are %s, the limit is %s; the largest are %s; name what trials don't need "+
		"in %s, or keep large data outside of the folder and name its path under share in project.yaml",
		size, most, strings.Join(largest, ", "), ignoreFile)
}

// Empty reports whether nothing travels.
func (f *Files) Empty() bool { return f == nil || len(f.items) == 0 }
