package containers

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mlfnode/node/executor/docker/dockertest"
)

// example is how a block of commands of the manuals is run: as it stands there, in a home that
// prepare has made ready for it.
type example struct {
	prepare func(*machine)
	code    int
	prints  []string
}

// examples are the blocks of commands, by their first line.
var examples = map[string]example{
	"mkdir square && cd square": {prepare: (*machine).pythonImage, prints: []string{"3 succeeded", "9"}},
	"mlfnode sweep train": {prepare: greedy, code: 1,
		prints: []string{"one trial of this task needs more than any node has: ",
			"try: lower `resources` in project.yaml"}},
	"mlfnode sweep --set lr=0.1,0.01 -- sh -c 'echo \"$MLF_GPUS: $CUDA_VISIBLE_DEVICES\"'": {prints: []string{": "}},
	"mlfnode trials --explain train-3/17": {prepare: ended("train"),
		prints: []string{"train-3/17 "}},
	"mlfnode gpus": {prepare: (*machine).master},
	"mlfnode trials chainer-3 --class cuda_oom     # the trials whose last attempt failed this way": {
		prepare: ended("chainer"), prints: []string{"Address already in use"}},
	"mlfnode doctor --classify train.log": {prepare: ended("chainer"), prints: []string{"port"}},
	"mlfnode sweep --set n=1,2 -- sh -c 'echo \"OSError: [Errno 98] Address already in use\" >&2; test $MLF_ATTEMPT -gt 1'": {prints: []string{"2 succeeded",
		"port"}},
}

// shown are blocks that are output, by their beginning. The last runs in TestCheckpointManual.
var shown = []string{"train-3: on NVIDIA", "exit code 1: a GPU ran out of memory", "import os, signal, sys, time"}

// block is a fenced block of a manual.
var block = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestExamplesOfTheManuals runs what the manuals show, so that readers can.
func TestExamplesOfTheManuals(t *testing.T) {
	found := 0
	for _, name := range []string{"containers", "gpus", "failures", "checkpoints"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range block.FindAllSubmatch(text, -1) {
			language, body := string(b[1]), string(b[2])
			first, rest, _ := strings.Cut(body, "\n")
			if command, ok := strings.CutPrefix(first, "$ "); ok && language == "console" {
				first, body = command, command
			} else if language == "console" {
				t.Errorf("%s: got the block %q, want it to begin with a command", name, rest)
			}
			if slices.ContainsFunc(shown, func(s string) bool { return strings.HasPrefix(body, s) }) {
				continue
			}
			if language != "yaml" {
				found++
			}
			t.Run(name+"/"+first, func(t *testing.T) {
				if language == "yaml" {
					checkSettings(t, body)
					return
				}
				e, ok := examples[first]
				if !ok {
					t.Fatal("nobody has said how to run this block")
				}
				e.run(t, body)
			})
		}
	}
	if found != len(examples) {
		t.Errorf("got %d blocks of commands in the manuals, want %d", found, len(examples))
	}
}

func (e example) run(t *testing.T, commands string) {
	m := newMachine(t)
	name, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range m.env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			m.env[i] = "PATH=" + filepath.Dir(name) + ":" + path
		}
	}
	if e.prepare != nil {
		e.prepare(m)
	}
	out, code := m.shell(commands)
	if code != e.code {
		t.Errorf("got exit code %d, want %d:\n%s", code, e.code, out)
	}
	for _, text := range e.prints {
		if !strings.Contains(out, text) {
			t.Errorf("got %s, want %q in it", out, text)
		}
	}
}

// shell runs commands as a user would type them, and gives what they print together.
func (m *machine) shell(commands string) (string, int) {
	m.t.Helper()
	cmd := exec.Command("sh", "-c", commands)
	cmd.Env, cmd.Dir = m.env, m.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		m.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// checkSettings has the program read a file of settings: a project, rules of failures, or settings
// of a node.
func checkSettings(t *testing.T, text string) {
	m := newMachine(t)
	m.write("p/train.py", "")
	m.write("p/main.py", "")
	m.write("p/parameters.yml", "batchsize: [64]\n")
	args := []string{"sweep", "--dry-run", "p"}
	switch {
	case strings.Contains(text, "tasks:\n"):
		m.write("p/project.yaml", text)
	case strings.HasPrefix(text, "rules:\n"):
		m.write("p/project.yaml", "tasks:\n  train: {command: [python3, train.py]}\n")
		m.write("p/failures.yaml", text)
	default:
		m.write("node.yaml", text)
		args = []string{"--config", "node.yaml", "members", "--json"}
		if _, errs, _ := m.run(args...); strings.Contains(errs, "node.yaml") {
			t.Errorf("got %s, want the settings to be right", errs)
		}
		return
	}
	m.must(args...)
}

// master makes a cluster of one node.
func (m *machine) master() {
	m.env = append(m.env, "MLF_BIND=127.0.0.1", "MLF_ADVERTISE=127.0.0.1", "MLF_NODE=nodea", "MLF_PORTS_API="+
		freePort(m.t), "MLF_PORTS_NATS="+freePort(m.t), "MLF_PORTS_GOSSIP="+freePort(m.t))
	m.node("master")
	m.until("nodea", "members")
}

// write writes a file of the user.
func (m *machine) write(name, text string) {
	m.t.Helper()
	file := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

// greedy makes a cluster, and a project whose trials need more GPUs than that has.
func greedy(m *machine) {
	m.master()
	m.write("train/project.yaml", "tasks:\n  train: {command: [\"true\"], resources: {gpus: 16}}\n")
}

// ended makes three sweeps of 18 trials that have failed for want of a port, and the output of one
// of them.
func ended(name string) func(*machine) {
	return func(m *machine) {
		m.write(name+"/project.yaml",
			"tasks:\n  t: {command: [sh, -c, 'echo \"OSError: [Errno 98] Address already in use\" >&2; exit 1'], retries: {port: 0}, parameters: p.yml}\n")
		m.write(name+"/p.yml", "n: {start: 0, end: 18}\n")
		m.write("train.log", "OSError: [Errno 98] Address already in use\n")
		for range 3 {
			m.run("sweep", "-q", name)
		}
	}
}

// pythonImage gives the machine an engine that has Python as the image that the manual names: the
// Python of this machine.
func (m *machine) pythonImage() {
	m.t.Helper()
	e := dockertest.New(m.t)
	m.env = append(m.env, "MLF_ENGINE_SOCKET="+e.Host())
	list := exec.Command("sh", "-c", `export PATH=/usr/bin:/bin:$PATH
python=$(python3 -c 'import sys; print(sys.executable)')
lib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
cd / && { printf '%s\n' bin lib lib64 usr/bin/sh usr/bin/dash "${python#/}" "$(readlink -f "$python" | cut -c2-)" "${lib#/}"
for f in "$python" /bin/sh "$lib"/lib-dynload/*.so; do ldd "$f"; done 2>/dev/null | sed -n 's/^.* => \(.*\) (.*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p' | sort -u |
	while read -r f; do echo "$(readlink -f "$(dirname "$f")")/$(basename "$f")"; readlink -f "$f"; done | cut -c2-
} | sort -u | tar -c --exclude=__pycache__ --exclude=test -T -`)
	list.Stderr = os.Stderr
	image, err := list.Output()
	if err == nil {
		err = e.Do("POST", "/images/create?fromSrc=-&repo=python:3.12-slim", bytes.NewBuffer(image), nil)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}
