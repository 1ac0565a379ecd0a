// Package servicetest boots a small Debian with a real systemd, so that a service can be tested in
// the environment in which it is installed. The root is made once by debootstrap and kept; each
// machine runs on top of it in a container of systemd-nspawn, and keeps everything that it writes
// in memory. A machine is up in less than a second and has no network but its loopback.
package servicetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/node/filelock"
)

// formEdition is the version of the root's form: if it changes, existing roots are made again.
const formEdition = "1"

// packages is what the root contains in addition to the smallest Debian: systemd as init, and
// sessions for user services.
const packages = "systemd,systemd-sysv,dbus,libpam-systemd"

// require skips the test where a machine can't be booted, and fails it where a skipped test must
// not go unnoticed.
func require(t testing.TB) {
	t.Helper()
	missing := ""
	switch {
	case os.Getuid() != 0:
		missing = "it needs root"
	case !found("debootstrap"), !found("systemd-nspawn"):
		missing = "it needs debootstrap and systemd-nspawn: apt-get install debootstrap systemd-container, or make install-deps"
	case !found("apt-get"):
		missing = "it needs the package source of a Debian"
	}
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no machine with systemd can be booted: " + missing)
	}
	t.Skip("left out, for want of a machine with systemd: " + missing)
}

func found(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// buildTimeout bounds the wait for another test program that makes the root.
const buildTimeout = 30 * time.Minute

// root returns the folder of the root, which it makes if it is missing. Concurrent test programs
// wait for each other.
func root(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/tmp"
	}
	suite, source, err := mirror()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "mlfnode-test", "root-"+suite+"-"+formEdition)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := filelock.Lock(t.Context(), dir+".lock", buildTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := build(dir, suite, source); err != nil {
		t.Fatal(err)
	}
	return dir
}

// build makes a root next to its final place and moves it there once it is complete.
func build(dir, suite, source string) error {
	half := dir + ".half"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	c := exec.Command("debootstrap", "--variant=minbase", "--include="+packages, suite, half, source)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("make a root with debootstrap: %w\n%s", err, tail(out, 30))
	}
	archives, _ := filepath.Glob(filepath.Join(half, "var/cache/apt/archives/*.deb"))
	for _, file := range archives {
		_ = os.Remove(file) // it only takes up space
	}
	return os.Rename(half, dir)
}

func tail(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// mirror determines the release of this machine and the address from which its apt gets packages.
// MLF_TEST_SUITE selects another release.
func mirror() (suite, source string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(release)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			suite = strings.Trim(name, `"`)
		}
	}
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(files, "/etc/apt/sources.list") {
		b, _ := os.ReadFile(file)
		if source = sourceIn(string(b), suite); source != "" {
			break
		}
	}
	if source == "" {
		return "", "", fmt.Errorf("find where apt gets the packages of %q: no source names it", suite)
	}
	if other := os.Getenv("MLF_TEST_SUITE"); other != "" {
		suite = other
	}
	return suite, source, nil
}

// sourceIn returns the address for a suite from a file in either format of sources.list(5).
func sourceIn(text, suite string) string {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string][]string{}
		for line := range strings.Lines(stanza) {
			if words := strings.Fields(line); len(words) > 1 {
				fields[words[0]] = append(fields[words[0]], words[1:]...)
			}
		}
		for _, s := range fields["Suites:"] {
			if s == suite && len(fields["URIs:"]) > 0 {
				return fields["URIs:"][0]
			}
		}
	}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		for i := 2; i < len(words); i++ {
			if words[0] == "deb" && words[i] == suite {
				return words[i-1]
			}
		}
	}
	return ""
}
