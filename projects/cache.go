package projects

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Cache keeps unpacked bundles, one folder for each digest. Nobody may change these folders.
type Cache struct {
	dir string

	mu      sync.Mutex
	opening map[string]*turns
}

// turns makes callers that open the same bundle proceed one after the other.
type turns struct {
	sync.Mutex
	callers int // guarded by the cache's mutex
}

// tempPrefix marks folders that are being filled.
const tempPrefix = ".new-"

// ContentsSuffix is the suffix of the file next to an unpacked bundle that holds the digest of its
// contents.
const ContentsSuffix = ".contents"

// NewCache opens the cache in dir and removes what a crash has left half unpacked. Only one process
// at a time may use the cache.
func NewCache(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make bundle cache: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read bundle cache: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), tempPrefix) {
			if err := RemoveTree(filepath.Join(dir, n.Name())); err != nil {
				return nil, fmt.Errorf("clean bundle cache: %w", err)
			}
		}
	}
	return &Cache{dir: dir, opening: map[string]*turns{}}, nil
}

// Open returns the unpacked folder of a digest, and the digest of its contents, which does not
// depend on times. If the folder does not exist, fetch writes the packed bundle; a bundle that does
// not have the digest is refused and leaves nothing behind. Concurrent callers share the work.
func (c *Cache) Open(digest string, fetch func(io.Writer) error) (dir, contents string, err error) {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size {
		return "", "", fmt.Errorf("%q is not the digest of a bundle", digest)
	}
	defer c.turn(digest)()
	dir = filepath.Join(c.dir, digest)
	if _, err := os.Stat(dir); err == nil {
		if known, err := os.ReadFile(dir + ContentsSuffix); err == nil && len(known) == 2*sha256.Size {
			return dir, string(known), nil
		}
		if err := RemoveTree(dir); err != nil { // an older version unpacked it, without modes and times
			return "", "", fmt.Errorf("unpack bundle again: %w", err)
		}
	}
	contents, err = c.fill(dir, digest, fetch)
	return dir, contents, err
}

// turn waits until nobody else opens this bundle, and returns a function that ends the caller's
// turn.
func (c *Cache) turn(digest string) (end func()) {
	c.mu.Lock()
	one := c.opening[digest]
	if one == nil {
		one = &turns{}
		c.opening[digest] = one
	}
	one.callers++
	c.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		if one.callers--; one.callers == 0 {
			delete(c.opening, digest)
		}
	}
}

// fill unpacks next to the folder's final place and then renames, so that the folder is either
// complete or absent.
func (c *Cache) fill(dir, digest string, fetch func(io.Writer) error) (contents string, err error) {
	tmp, err := os.MkdirTemp(c.dir, tempPrefix)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the cache
		if err = os.MkdirAll(c.dir, 0o700); err == nil {
			tmp, err = os.MkdirTemp(c.dir, tempPrefix)
		}
	}
	if err != nil {
		return "", fmt.Errorf("make folder for bundle: %w", err)
	}
	defer func() { err = errors.Join(err, RemoveTree(tmp)) }()
	packed := filepath.Join(tmp, "packed")
	if err := fetchVerified(packed, digest, fetch); err != nil {
		return "", err
	}
	files := filepath.Join(tmp, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return "", fmt.Errorf("make folder for bundle: %w", err)
	}
	f, err := os.Open(packed)
	if err != nil {
		return "", fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close()
	if contents, err = Unpack(f, files); err != nil {
		return "", err
	}
	if err := os.WriteFile(dir+ContentsSuffix, []byte(contents), 0o600); err != nil {
		return "", fmt.Errorf("keep bundle: %w", err)
	}
	if err := os.Rename(files, dir); err != nil {
		return "", fmt.Errorf("keep bundle: %w", err)
	}
	return contents, nil
}

func fetchVerified(path, digest string, fetch func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("store bundle: %w", err)
	}
	sum := sha256.New()
	err = fetch(io.MultiWriter(f, sum))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("fetch bundle: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("the bundle %s is damaged: its content has the digest %s", digest, got)
	}
	return nil
}
