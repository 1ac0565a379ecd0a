package projects

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newCache(t *testing.T) (*Cache, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundles")
	c, err := NewCache(dir)
	check(t, err)
	return c, dir
}

func fetching(bundle []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(bundle)
		return err
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	if diff := cmp.Diff(tree{}, readTree(t, dir)); diff != "" {
		t.Errorf("something was left in the cache (-want +got):\n%s", diff)
	}
}

func TestCacheOpen(t *testing.T) {
	content := tree{"main.py": ":print(1)\n", "sub": "dir", "sub/run": "x:true"}
	bundle, digest := pack(t, content.folder(t))
	c, dir := newCache(t)
	got, contents, err := c.Open(digest, fetching(bundle))
	check(t, err)
	if want := filepath.Join(dir, digest); got != want {
		t.Errorf("got folder %s, want %s", got, want)
	}
	if diff := cmp.Diff(content, readTree(t, got)); diff != "" {
		t.Errorf("wrong content (-want +got):\n%s", diff)
	}
	unwanted := func(io.Writer) error { return errors.New("fetched again") }
	if again, same, err := c.Open(digest, unwanted); err != nil || again != got || same != contents {
		t.Errorf("second time: got %s, %v, want %s", again, err, got)
	}
	later, err := NewCache(dir)
	check(t, err)
	if again, same, err := later.Open(digest, unwanted); err != nil || again != got || same != contents {
		t.Errorf("after a restart: got %s, %v, want %s", again, err, got)
	}
	names, err := os.ReadDir(dir)
	check(t, err)
	if len(names) != 2 {
		t.Errorf("got %d entries in the cache, want the folder and the digest of its contents: %v", len(names), names)
	}
}

func TestCacheRefusesHostileBundles(t *testing.T) {
	for name, bad := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			c, dir := newCache(t)
			sum := sha256.Sum256(bad.bundle)
			_, _, err := c.Open(hex.EncodeToString(sum[:]), fetching(bad.bundle))
			wantError(t, err, bad.want)
			wantEmpty(t, dir)
		})
	}
}

func TestCacheRefusesOtherContent(t *testing.T) {
	bundle, digest := pack(t, tree{"a": ":1"}.folder(t))
	other, otherDigest := pack(t, tree{"a": ":2"}.folder(t))
	empty := sha256.Sum256(nil)
	for _, c := range []struct {
		name  string
		fetch func(io.Writer) error
		want  string
	}{
		{"other", fetching(other), "the bundle " + digest + " is damaged: its content has the digest " + otherDigest},
		{"nothing", fetching(nil), "the bundle " + digest + " is damaged: its content has the digest " +
			hex.EncodeToString(empty[:])},
		{"broken off", func(w io.Writer) error {
			_, err := w.Write(bundle[:len(bundle)/2])
			return errors.Join(err, io.ErrUnexpectedEOF)
		}, "fetch bundle: unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache, dir := newCache(t)
			_, _, err := cache.Open(digest, c.fetch)
			wantError(t, err, c.want)
			wantEmpty(t, dir)
			if _, _, err := cache.Open(digest, fetching(bundle)); err != nil {
				t.Errorf("the right bundle afterwards: got %v, want no error", err)
			}
		})
	}
}

func TestCacheRefusesNames(t *testing.T) {
	c, dir := newCache(t)
	for _, digest := range []string{"", "..", "../../etc", "abcd", strings.Repeat("g", 64), strings.Repeat("0", 66)} {
		_, _, err := c.Open(digest, func(io.Writer) error { return errors.New("fetched") })
		wantError(t, err, fmt.Sprintf("%q is not the digest of a bundle", digest))
	}
	wantEmpty(t, dir)
}

func TestCacheOpenTogether(t *testing.T) {
	content := tree{"main.py": ":print(1)\n"}
	bundle, digest := pack(t, content.folder(t))
	other, otherDigest := pack(t, tree{"a": ":other"}.folder(t))
	c, _ := newCache(t)
	var fetched atomic.Int32
	begun, release := make(chan struct{}), make(chan struct{})
	slow := func(w io.Writer) error {
		if fetched.Add(1) == 1 {
			close(begun)
			<-release
			return errors.New("the first fetch fails")
		}
		_, err := w.Write(bundle)
		return err
	}
	var failed atomic.Int32
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			dir, _, err := c.Open(digest, slow)
			if err != nil {
				failed.Add(1)
				return
			}
			if text, err := os.ReadFile(filepath.Join(dir, "main.py")); err != nil || string(text) != "print(1)\n" {
				t.Errorf("got %q, %v, want the whole file", text, err)
			}
		})
	}
	<-begun
	// would never return if it had to wait for the slow one
	if _, _, err := c.Open(otherDigest, fetching(other)); err != nil {
		t.Errorf("another digest meanwhile: %v", err)
	}
	close(release)
	group.Wait()
	if failed.Load() != 1 {
		t.Errorf("got %d failures, want that of the first fetch", failed.Load())
	}
	if fetched.Load() != 2 {
		t.Errorf("got %d fetches, want 2", fetched.Load())
	}
}

const killedIn = "PROJECTS_TEST_KILLED_IN"

// TestCacheVictim is the process that TestCacheKilled kills. It reads a digest, a number of bytes
// and a bundle from its standard input, and writes a dot once it has read that many bytes.
func TestCacheVictim(t *testing.T) {
	dir := os.Getenv(killedIn)
	if dir == "" {
		t.Skip("runs in a process of its own")
	}
	c, err := NewCache(dir)
	check(t, err)
	in := bufio.NewReader(os.Stdin)
	var digest string
	var size int64
	_, err = fmt.Fscanf(in, "%s %d\n", &digest, &size)
	check(t, err)
	_, _, err = c.Open(digest, func(w io.Writer) error {
		_, err := io.CopyN(w, in, size)
		fmt.Print(".")
		_, rest := io.Copy(w, in)
		return errors.Join(err, rest)
	})
	check(t, err)
}

func TestCacheKilled(t *testing.T) {
	content := tree{}
	for i := range 500 {
		content[fmt.Sprintf("f%04d", i)] = fmt.Sprintf(":%d", i)
	}
	bundle, digest := pack(t, content.folder(t))
	for name, sent := range map[string]int{"at the start": 0, "while it fetches": len(bundle) / 2,
		"while it unpacks": len(bundle)} {
		t.Run(name, func(t *testing.T) {
			_, dir := newCache(t)
			killVictim(t, dir, fmt.Sprintln(digest, sent), bundle[:sent], sent == len(bundle))
			c, err := NewCache(dir)
			check(t, err)
			for name := range readTree(t, dir) {
				if !strings.HasPrefix(name, digest) {
					t.Fatalf("%s was left of the killed process", name)
				}
			}
			got, _, err := c.Open(digest, fetching(bundle))
			check(t, err)
			if diff := cmp.Diff(content, readTree(t, got)); diff != "" {
				t.Errorf("wrong content (-want +got):\n%s", diff)
			}
		})
	}
}

// killVictim runs TestCacheVictim and kills it once it has the data. If all is set, the data is the
// whole bundle, and the victim is already unpacking it.
func killVictim(t *testing.T, dir, order string, data []byte, all bool) {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self, "-test.run=^TestCacheVictim$")
	cmd.Env = append(os.Environ(), killedIn+"="+dir)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	_, err = io.Copy(stdin, io.MultiReader(strings.NewReader(order), bytes.NewReader(data)))
	check(t, err)
	if all {
		check(t, stdin.Close())
	}
	dot := make([]byte, 1)
	if _, err := io.ReadFull(stdout, dot); err != nil || dot[0] != '.' {
		t.Errorf("the victim wrote %q, %v, want a dot", dot, err)
	}
	check(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil && !all {
		t.Error("the victim ended by itself, want it killed")
	}
}
