package main

import (
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
)

// downMark gives the mark of this user's context, and whether there is a context.
func downMark(t *testing.T) (*trust.Down, bool) {
	t.Helper()
	file, err := node.ContextFile()
	if err != nil {
		t.Fatal(err)
	}
	c, err := trust.LoadContext(file)
	return c.Down, err == nil
}

// TestFarewell takes down the user's cluster, and another one whose master is on the same machine:
// that leaves the access alone.
func TestFarewell(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	mine, other := newContext(t), newContext(t)
	down := func(of trust.Context, changed []string, purge, ok bool) {
		t.Helper()
		all := []bootstrap.Outcome{
			{Host: "w", Roles: []grid.NodeRole{grid.Worker}, OK: true},
			{Host: "boss", Roles: []grid.NodeRole{grid.Master}, OK: ok, Reached: []string{"boss"},
				Authority: of.Pin().String(), Changed: changed},
		}
		if err := recordDown(t.Context(), all, purge, "cluster.yaml"); err != nil {
			t.Error(err)
		}
	}
	if _, err := node.SaveContext(mine); err != nil {
		t.Fatal(err)
	}
	down(other, []string{"stopped"}, false, true)
	down(other, []string{"stopped"}, true, true)
	down(mine, nil, true, false)
	if mark, there := downMark(t); !there || mark != nil {
		t.Fatalf(
			"after the end of another cluster, and a failure: got the mark %v, a context: %v, want a context without a mark",
			mark, there)
	}
	down(mine, []string{"stopped"}, false, true)
	here, err := filepath.Abs("cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mark, _ := downMark(t)
	if mark == nil || mark.File != here || time.Since(mark.At) > time.Minute {
		t.Fatalf("got the mark %+v, want one of now with %s", mark, here)
	}
	mine.Down = &trust.Down{At: mark.At.Add(-time.Hour), File: here}
	if _, err := node.SaveContext(mine); err != nil {
		t.Fatal(err)
	}
	down(mine, nil, false, true)
	if again, _ := downMark(t); again == nil || !again.At.Equal(mine.Down.At) {
		t.Errorf("taken down twice: got the mark %+v, want that of the first time", again)
	}
	down(mine, []string{"stopped", "removed"}, true, true)
	if _, there := downMark(t); there {
		t.Error("after a purge there is still a context")
	}
}

// TestFarewellAfterAnInterruptedPurge purges a master whose files are gone already, so that nothing
// names its cluster: the access to it goes, and that to any other cluster stays.
func TestFarewellAfterAnInterruptedPurge(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	silent, answers := free.Addr().String(), l.Addr().String()
	for _, tt := range []struct {
		name, master, reached, downWith string
		other, purge, stays             bool
	}{
		{name: "its files are gone", master: silent, reached: "127.0.0.1", purge: true},
		{name: "it was taken down before", master: silent, reached: "127.0.0.1", downWith: "cluster.yaml", purge: true},
		{name: "no purge", master: silent, reached: "127.0.0.1", stays: true},
		{name: "a cluster that answers there", master: answers, reached: "127.0.0.1", purge: true, stays: true},
		{name: "one of another file, which is down", master: silent, reached: "127.0.0.1", downWith: "lab.yaml",
			purge: true, stays: true},
		{name: "one on another machine", master: silent, reached: "10.0.0.7", purge: true, stays: true},
		{name: "the master is known to be of another one", master: silent, reached: "127.0.0.1", other: true,
			purge: true, stays: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newContext(t)
			c.Master = []string{tt.master}
			if tt.downWith != "" {
				c.Down = &trust.Down{At: time.Now().Add(-time.Hour), File: absolute(tt.downWith)}
			}
			if _, err := node.SaveContext(c); err != nil {
				t.Fatal(err)
			}
			before, _ := downMark(t)
			boss := bootstrap.Outcome{Host: "boss", Roles: []grid.NodeRole{grid.Master}, OK: true,
				Reached: []string{tt.reached}}
			if tt.other {
				boss.Authority = newContext(t).Pin().String()
			}
			if err := recordDown(t.Context(), []bootstrap.Outcome{boss}, tt.purge, "cluster.yaml"); err != nil {
				t.Error(err)
			}
			if mark, there := downMark(t); there != tt.stays || there && (mark == nil) != (before == nil) {
				t.Errorf("there is a context: %v with the mark %v, want %v with the mark %v", there,
					mark, tt.stays, before)
			}
		})
	}
}

// TestStatusOfAStoppedCluster says since when a cluster is stopped that the user has taken down,
// and what is wrong with any other one.
func TestStatusOfAStoppedCluster(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Chdir(t.TempDir())
	at := time.Date(2026, 3, 7, 18, 5, 0, 0, time.Local)
	c := newContext(t)
	c.Down = &trust.Down{At: at, File: absolute("lab.yaml")}
	if _, err := node.SaveContext(c); err != nil {
		t.Fatal(err)
	}
	other := newContext(t)
	other.Down = &trust.Down{At: at, File: absolute("my lab.yaml")}
	if _, err := node.SaveContext(other); err != nil {
		t.Fatal(err)
	}
	idle := func(name string) bootstrap.Outcome {
		return bootstrap.Outcome{Host: name, Observed: &protocol.Observed{},
			Problem: &shell.Problem{Cause: "the node is not running", Cure: "mlfnode up -f"}}
	}
	busy := bootstrap.Outcome{Host: "a", OK: true,
		Observed: &protocol.Observed{Service: protocol.ServiceBackground, Active: true, Working: true}}
	twin := bootstrap.Outcome{Host: "d", Observed: &protocol.Observed{},
		Problem: &shell.Problem{Cause: "it is the same machine as a", Cure: "name it once"}}
	lost := bootstrap.Outcome{Host: "c", Problem: &shell.Problem{Cause: "c refuses connections"}}
	const since = "stopped since 7 March 2026 18:05"
	for _, tt := range []struct {
		name, file string
		all        []bootstrap.Outcome
		stopped    int // machines
		says, not  string
	}{
		{"all of it", "lab.yaml", []bootstrap.Outcome{idle("a"), idle("b")}, 2,
			"start it with: mlfnode up -f lab.yaml\n", "is not running"},
		{"a machine is away", "lab.yaml", []bootstrap.Outcome{idle("a"), idle("b"), lost}, 2,
			"c: c refuses connections\n", "is not running"},
		{"a machine is there twice", "lab.yaml", []bootstrap.Outcome{idle("a"), twin}, 1,
			"d: it is the same machine as a\n  try: name it once\n", "name it once lab.yaml"},
		{"a file with a blank", "my lab.yaml", []bootstrap.Outcome{idle("a")}, 1,
			"start it with: mlfnode up -f 'my lab.yaml'\n", "is not running"},
		{"another file", "cluster.yaml", []bootstrap.Outcome{idle("a"), idle("b")}, 0,
			"b: the node is not running\n  try: mlfnode up -f\n", "taken down"},
		{"brought up by somebody", "lab.yaml", []bootstrap.Outcome{busy, idle("b")}, 0,
			"b: the node is not running\n", "taken down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said bytes.Buffer
			ui := newConsole(&out, &said)
			markStopped(tt.all, tt.file)
			if err := reportOutcomes(t.Context(), ui, tt.all, at, true); err == nil {
				t.Error("want the exit code of a cluster that does not work")
			}
			if n := strings.Count(out.String(), since); n != tt.stopped {
				t.Errorf("%d machines are %s, want %d:\n%s", n, since, tt.stopped, &out)
			}
			if !strings.Contains(said.String(), tt.says) || strings.Contains(said.String(), tt.not) {
				t.Errorf("got\n%s\nwant %q in it, and not %q", &said, tt.says, tt.not)
			}
			out.Reset()
			ui.json = true
			if err := reportOutcomes(t.Context(), ui, tt.all, at, true); err == nil || !json.Valid(out.Bytes()) {
				t.Errorf("as JSON: got error %v and %s", err, &out)
			}
			if n := strings.Count(out.String(), `"stopped": "2026-03-07T`); n != tt.stopped {
				t.Errorf("as JSON %d machines are stopped, want %d:\n%s", n, tt.stopped, &out)
			}
		})
	}
}
