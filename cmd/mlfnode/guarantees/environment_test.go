package guarantees

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// rawEnviron is a project whose program prints its environment as the kernel hands it over. Its
// program is found only in the PATH that the task makes of the node's or the shell's.
var rawEnviron = map[string]string{
	"project.yaml": `name: raw
default: t
tasks:
  t:
    command: ["raw"]
    env: {THREADS: "1", PATH: "$TOOLS:$PATH", OF_TASK: "task", BOTH: "task"}
`,
	"tools/raw": "#!/bin/sh\nexec cat /proc/self/environ\n",
	"trap/raw":  "#!/bin/sh\necho this is the raw of another PATH\n",
}

// writeProject writes files below a new folder.
func writeProject(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// checkEnviron wants each name once, and some entries.
func checkEnviron(t *testing.T, raw string, wants ...string) {
	t.Helper()
	entries := strings.Split(strings.Trim(raw, "\x00\n"), "\x00")
	count := map[string]int{}
	for _, kv := range entries {
		name, _, _ := strings.Cut(kv, "=")
		count[name]++
	}
	for name, n := range count {
		if n != 1 {
			t.Errorf("variable %s: got %d entries, want one", name, n)
		}
	}
	for _, want := range wants {
		if !slices.Contains(entries, want) {
			t.Errorf("environment: got %q, want %q in it", entries, want)
		}
	}
}

// TestATrialGetsItsEnvironment runs a program that prints its raw environment, alone and in a
// cluster, where the shell that submits and the nodes have different ones.
func TestATrialGetsItsEnvironment(t *testing.T) {
	t.Parallel()
	dir := writeProject(t, rawEnviron)
	tools, trap := filepath.Join(dir, "tools"), filepath.Join(dir, "trap")
	path := os.Getenv("PATH")
	t.Run("alone", func(t *testing.T) {
		h := newHome(t, "PATH="+trap+":"+path, "THREADS=8", "TOOLS="+tools, "OF_SHELL=shell", "ADDED=shell")
		h.must("sweep", "-q", "--env", "BOTH=flag", "--env", "ADDED=flag", "--env", "OF_SHELL", dir)
		checkEnviron(t, h.must("logs", "last/0"), "PATH="+tools+":"+trap+":"+path,
			"THREADS=1", "OF_TASK=task", "BOTH=flag", "ADDED=flag",
			"OF_SHELL=shell", "HOME="+h.dir)
		h.must("sweep", "-q", "--set", "k=1", "--env", "PATH="+tools+":"+path, "--", "raw")
		checkEnviron(t, h.must("logs", "last/0"), "PATH="+tools+":"+path, "THREADS=8")
	})
	t.Run("in a cluster", func(t *testing.T) {
		p := newScenario(t, 1, hosts.Options{Env: []string{"PATH=" + trap + ":" + path, "THREADS=8", "TOOLS=" + tools,
			"OF_NODE=node", "ADDED=node"}})
		at := func(args ...string) *exec.Cmd {
			cmd := p.Master.Command(args...)
			cmd.Env = append(cmd.Env, "PATH=/nowhere", "THREADS=16", "TOOLS=/nowhere",
				"OF_SHELL=shell", "OF_NODE=", "ADDED=")
			return cmd
		}
		run := func(args ...string) string {
			t.Helper()
			if r := p.Master.Run(at(args...)); r.Code != 0 {
				t.Fatalf("mlfnode %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
			}
			return p.Master.Must("logs", "last/0")
		}
		raw := run("sweep", "-q", "--env", "BOTH=flag", "--env", "ADDED=flag", "--env", "OF_SHELL", dir)
		checkEnviron(t, raw, "PATH="+tools+":"+trap+":"+path,
			"THREADS=1", "OF_TASK=task", "BOTH=flag", "ADDED=flag", "OF_SHELL=shell", "OF_NODE=node")
		// What only the nodes have is theirs to judge: a name in their PATH, a path on their disk.
		checkEnviron(t, run("sweep", "-q", "--set", "k=1", "--env", "PATH="+tools+":"+path, "--", "raw"),
			"THREADS=8", "OF_NODE=node")
		r := p.Master.Run(at("sweep", "--set", "k=1", "--retries", "0", "--", "/nowhere/bin/python"))
		if r.Code != 1 || !strings.Contains(r.Stdout+r.Stderr, `"/nowhere/bin/python" does not exist`) {
			t.Errorf("a program that no node has: got exit code %d, %s%s, want the node's own words",
				r.Code, r.Stdout, r.Stderr)
		}
		r = p.Master.Run(at("sweep", "-q", "--set", "k=1", "--", "./none.sh"))
		if r.Code != 2 || !strings.Contains(r.Stderr, "there is no program ./none.sh") {
			t.Errorf("a program that the folder lacks: got exit code %d, %s, want it refused", r.Code, r.Stderr)
		}
	})
}
