package bootstrap

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"mlfnode/cluster/bootstrap/shell"
)

// Builds finds the program that fits a machine: the running one, or one beside it, as `make
// release` builds them. It reads each of them once.
type Builds struct {
	self string // path of the running program

	mu   sync.Mutex
	read map[string]*build
}

// build is a program that can be installed on machines.
type build struct {
	content    []byte
	digest     string                 // SHA-256, hex
	compressed func() ([]byte, error) // the content by gzip, made when it is first sent
	arch       string                 // in Go's words
	glibc      string                 // the oldest version that it runs with; "" for a static one
}

// NewBuilds returns the Builds for the running program, which is at this path.
func NewBuilds(self string) *Builds { return &Builds{self: self, read: map[string]*build{}} }

// fitting returns the program for a machine, or a problem if there is none.
func (b *Builds) fitting(f *Facts) (*build, error) {
	name, dir := "mlfnode-linux-"+f.goArch(), filepath.Dir(b.self)
	// the best first
	for _, path := range []string{b.self, filepath.Join(dir, name), filepath.Join(dir, "release", name)} {
		p, err := b.open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p.arch == f.goArch() && glibcSatisfies(p.glibc, f.Glibc) {
			return p, nil
		}
	}
	what := f.goArch()
	if what == runtime.GOARCH {
		what = fmt.Sprintf("%s that runs without glibc %s", what, cmp.Or(f.Glibc, "at all"))
	}
	return nil, &shell.Problem{Cause: "there is no mlfnode here for " + what,
		Cure: fmt.Sprintf("put mlfnode-linux-%s beside %s; `make release` builds it", f.goArch(), b.self)}
}

// open reads a program, once.
func (b *Builds) open(path string) (*build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.read[path]; p != nil {
		return p, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("read the program %s: %w", path, err)
	}
	sum := sha256.Sum256(content)
	p := &build{
		content: content, digest: hex.EncodeToString(sum[:]),
		arch: map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine],
		compressed: sync.OnceValues(func() ([]byte, error) {
			var packed bytes.Buffer
			w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
			if err != nil {
				return nil, err
			}
			_, err = w.Write(content)
			err = errors.Join(err, w.Close())
			return packed.Bytes(), err
		}),
	}
	symbols, _ := f.ImportedSymbols() // a static program imports nothing, which is an error
	for _, s := range symbols {
		if v, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && !glibcSatisfies(v, p.glibc) {
			p.glibc = v
		}
	}
	b.read[path] = p
	return p, nil
}

// glibcSatisfies reports whether a program that needs one version of glibc runs with another; ""
// stands for none.
func glibcSatisfies(needed, there string) bool {
	if needed == "" || there == "" {
		return needed == ""
	}
	a, b := strings.Split(needed, "."), strings.Split(there, ".")
	for i := range a {
		n, _ := strconv.Atoi(a[i])
		m := 0
		if i < len(b) {
			m, _ = strconv.Atoi(b[i])
		}
		if n != m {
			return n < m
		}
	}
	return true
}
