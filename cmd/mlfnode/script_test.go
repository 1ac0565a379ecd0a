package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary mlfnode for scripts, what commands that run in a test start in the
// background, or the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "host" || os.Args[1] == "shim") {
		main()
	}
	testscript.Main(m, map[string]func(){
		"mlfnode": main,
	})
}

// TestScripts holds the command line, with the exact text that a user sees.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Deadline: time.Now().Add(3 * time.Minute),
		Setup:    scriptHome,
	})
}

// TestVenvByUV runs the script of virtual environments on a machine that has uv.
func TestVenvByUV(t *testing.T) {
	dir, err := filepath.Abs("../../.uv/bin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "uv")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("uv is not there: .ci/install brings it")
		}
		t.Skip("left out: .ci/install has not brought uv")
	}
	only := t.TempDir() // the folder has a python3 of its own
	if err := os.Symlink(filepath.Join(dir, "uv"), filepath.Join(only, "uv")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:    []string{"testdata/script/venv.txtar"},
		Deadline: time.Now().Add(5 * time.Minute),
		Setup: func(e *testscript.Env) error {
			err := scriptHome(e)
			e.Setenv("VENV_BY", "uv$")
			e.Setenv("PATH", only+string(filepath.ListSeparator)+e.Getenv("PATH"))
			return err
		},
	})
}

// scriptHome gives a script a home of its own.
func scriptHome(e *testscript.Env) error {
	home := filepath.Join(e.WorkDir, "home")
	for key, value := range map[string]string{
		"HOME": home, "XDG_STATE_HOME": filepath.Join(home, "state"), "XDG_CONFIG_HOME": filepath.Join(home, "config"),
		"XDG_CACHE_HOME": filepath.Join(home, "cache"), "MLF_NODE": "here", "MLF_CPUS": "2", "VENV_BY": "",
	} {
		e.Setenv(key, value)
	}
	e.Defer(func() { killUnder(e.WorkDir) })
	return os.MkdirAll(home, 0o755)
}

// killUnder ends the background nodes that a script which failed has left.
func killUnder(dir string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		args, err := os.ReadFile(line)
		if err != nil || !bytes.Contains(args, []byte("\x00host\x00--state-dir\x00"+dir)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(line))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended in between
		}
	}
}
