package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
)

// backupTimeout is the longest that these tests wait for one thing.
const backupTimeout = 5 * time.Minute

// movingCluster is a master, without trials, and a worker, in this process.
type movingCluster struct {
	t      *testing.T
	gate   string // trials of the second sweep run until this file is there
	master *node.Node
	client *api.Client

	worker   *node.Node
	workerAs config.Config
}

// settings are those of a node on this machine. Ports of the master are chosen, since workers are
// told of them.
func (c *movingCluster) settings(name string) config.Config {
	c.t.Helper()
	cfg, err := config.Load("")
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.StateDir, cfg.Node = filepath.Join(c.t.TempDir(), name), grid.NodeID(name)
	cfg.Cluster.Bind, cfg.Cluster.Advertise, cfg.Cluster.Worker = "127.0.0.1", "127.0.0.1", false
	cfg.Cluster.Ports, cfg.Cluster.Patience = config.Ports{API: freePort(c.t), NATS: freePort(c.t),
		Gossip: freePort(c.t)}, backupTimeout
	cfg.Logger = slog.New(slog.NewTextHandler(c.t.Output(), nil))
	return cfg
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *movingCluster) startMaster(cfg config.Config) {
	c.t.Helper()
	var err error
	if c.master, err = node.OpenMaster(c.t.Context(), cfg); err != nil {
		c.t.Fatal(err)
	}
	s, _ := node.At(c.t.Context(), cfg)
	if s == nil {
		c.t.Fatal("the master does not answer")
	}
	c.t.Cleanup(func() { s.Close() })
	c.client = s.Client()
}

func (c *movingCluster) startWorker() {
	c.t.Helper()
	var err error
	if c.worker, err = node.OpenWorker(c.t.Context(), c.workerAs); err != nil {
		c.t.Fatal(err)
	}
}

func (c *movingCluster) stopMaster() {
	if c.master != nil {
		c.master.Close()
		c.master = nil
	}
}

// mlfnode runs a command line, and gives what it prints.
func (c *movingCluster) mlfnode(code int, args ...string) string {
	c.t.Helper()
	var out bytes.Buffer
	if got := run(c.t.Context(), &interrupts{}, args, &out, &out); got != code {
		c.t.Fatalf("mlfnode %s: got exit code %d, want %d\n%s", strings.Join(args, " "), got, code, &out)
	}
	return out.String()
}

// submit submits a sweep of three trials.
func (c *movingCluster) submit(text string) grid.SweepID {
	c.t.Helper()
	s := sleepers(c.t, "3")
	s.Task.Command[2], s.Task.Artifacts = text, []string{"kept"}
	v, err := c.client.Sweeps().Submit(c.t.Context(), s)
	if err != nil {
		c.t.Fatal(err)
	}
	return v.Sweep
}

// await watches a sweep until it is as ok wants.
func (c *movingCluster) await(id grid.SweepID, ok func(api.Sweep) bool) {
	c.t.Helper()
	ctx, stop := context.WithTimeout(c.t.Context(), backupTimeout)
	defer stop()
	var last api.Sweep
	for u, err := range c.client.Sweeps().Watch(ctx, id, 0) {
		if err != nil {
			c.t.Fatalf("watch %s: %v (last %+v)", id, err, last)
		}
		if u.Sweep != nil {
			if last = *u.Sweep; ok(last) {
				return
			}
		}
	}
	if !ok(last) {
		c.t.Fatalf("%s ended: %+v", id, last)
	}
}

func finished(s api.Sweep) bool { return s.State == grid.SweepFinished && s.Succeeded == 3 }

// found is all that a user finds about a sweep: its trials with their results, output and
// artifacts.
func (c *movingCluster) found(id grid.SweepID) string {
	c.t.Helper()
	var b strings.Builder
	for trial, err := range c.client.Trials().List(c.t.Context(), id, api.TrialQuery{}) {
		if err != nil {
			c.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%d %s %d %s %v\n", trial.Index, trial.State, trial.Attempts, trial.Node, trial.Ended)
		for o, err := range c.client.Logs().Stream(c.t.Context(), id, api.LogQuery{Index: trial.Index}) {
			if err != nil {
				c.t.Fatal(err)
			}
			b.Write(o.Data)
		}
	}
	files, err := c.client.Trials().Artifacts(c.t.Context(), id, -1)
	if err != nil {
		c.t.Fatal(err)
	}
	defer files.Close()
	if _, err := fmt.Fprintln(&b, readAll(c.t, files)); err != nil {
		c.t.Fatal(err)
	}
	return b.String()
}

// begun counts how often trials of the second sweep have begun.
func (c *movingCluster) begun() int {
	b, _ := os.ReadFile(c.gate + ".begun")
	return bytes.Count(b, []byte("begun"))
}

// newMovingCluster has a sweep that is finished and one whose trials run, both with output and
// artifacts.
func newMovingCluster(t *testing.T) (c *movingCluster, old config.Config, done, running grid.SweepID) {
	t.Helper()
	for _, key := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(key, t.TempDir())
	}
	t.Setenv("MLF_CPUS", "4")
	c = &movingCluster{t: t, gate: filepath.Join(t.TempDir(), "gate")}
	old = c.settings("old")
	c.startMaster(old)
	t.Cleanup(func() { c.stopMaster() })
	made, err := c.client.Access().MakeToken(t.Context(), api.NewToken{Role: "node", User: "none"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	worker := c.settings("w")
	if _, err := node.Join(t.Context(), worker, fmt.Sprintf("127.0.0.1:%d", old.Cluster.Ports.API), token); err != nil {
		t.Fatal(err)
	}
	c.workerAs = worker
	c.startWorker()
	t.Cleanup(func() {
		c.worker.Stop()
		c.worker.Close()
	})
	done = c.submit(`head -c 1000000 /dev/zero | tr "\000" x; echo "output of $MLF_TRIAL" | tee kept`)
	c.await(done, finished)
	running = c.submit("echo begun >>" + c.gate + ".begun; echo saved >kept; until [ -e " + c.gate +
		" ]; do sleep 0.05; done")
	c.await(running, func(s api.Sweep) bool { return s.Running == 3 && c.begun() == 3 })
	return c, old, done, running
}

// checkRestored wants the new master to have what the old one had, and the worker to have followed
// with what it runs.
func (c *movingCluster) checkRestored(old, now config.Config, done, running grid.SweepID, want, token string) {
	c.t.Helper()
	if got := c.found(done); got != want {
		c.t.Errorf("after the restore: got\n%s\nwant\n%s", got, want)
	}
	client := fmt.Sprintf("127.0.0.1:%d", now.Cluster.Ports.API)
	c.t.Setenv(membership.TokenVariable, token)
	if out := c.mlfnode(0, "sweeps", "--master", client); !strings.Contains(out, string(done)) {
		c.t.Errorf("with a token of the old master: got\n%s\nwant %s in it", out, done)
	}
	if err := os.WriteFile(c.gate, nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.await(running, finished)
	if c.begun() != 3 {
		c.t.Errorf("trials began %d times, want 3: their worker had them all the time", c.begun())
	}
	if files := c.found(running); strings.Count(files, "saved") != 3 {
		c.t.Errorf("artifacts of what ran meanwhile: got\n%s\nwant three", files)
	}
	for _, name := range []string{"ca.crt", "ca.key", "tokens.json"} {
		was, err := os.ReadFile(filepath.Join(old.StateDir, "trust", name))
		if err != nil {
			c.t.Fatal(err)
		}
		is, err := os.ReadFile(filepath.Join(now.StateDir, "trust", name))
		if err != nil || name != "tokens.json" && !bytes.Equal(is, was) {
			c.t.Errorf("%s is another one (%v)", name, err)
		}
	}
	err := filepath.WalkDir(now.StateDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (d.Type().IsRegular() || d.IsDir()) && strings.Contains(path, "/trust") &&
			info.Mode().Perm()&0o077 != 0 {
			c.t.Errorf("%s has the mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestBackupOfARunningMaster restores a backup that was made while trials ran, on ports where no
// worker expects the master.
func TestBackupOfARunningMaster(t *testing.T) {
	c, old, done, running := newMovingCluster(t)
	operator, err := c.client.Access().MakeToken(t.Context(), api.NewToken{Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	want, file := c.found(done), filepath.Join(t.TempDir(), "backup")
	c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: got %v, %v, want the mode 0600", info, err)
	}
	if said := c.mlfnode(0, "backup", "-", "--state-dir", old.StateDir); !strings.Contains(said,
		"wrote a backup of ") || strings.Contains(said, "; restore it") {
		t.Errorf("to standard output: got %q in the end", said[max(0, len(said)-200):])
	}
	after := c.submit("true") // is not in the backup
	c.await(after, func(api.Sweep) bool { return true })
	c.stopMaster()
	now := c.settings("new")
	c.mlfnode(0, "restore", file, "--state-dir", now.StateDir)
	c.startMaster(now)
	c.checkRestored(old, now, done, running, want, operator.Token)
	if next := c.submit("true"); next == after {
		t.Errorf("a new sweep has the name of one that nodes may still report about, %s", next)
	}
}

// TestMoveTheMaster does what the manual says of moving a master.
func TestMoveTheMaster(t *testing.T) {
	c, old, done, running := newMovingCluster(t)
	operator, err := c.client.Access().MakeToken(t.Context(), api.NewToken{Role: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	want, file := c.found(done), filepath.Join(t.TempDir(), "backup")
	if said := c.mlfnode(1, "backup", "--move", file, "--state-dir", old.StateDir); !strings.Contains(said,
		"the master is running") {
		t.Errorf("while it runs: got\n%s", said)
	}
	c.stopMaster()
	settings := filepath.Join(t.TempDir(), "node.yaml") // that are not those of the master: nothing may be cut to them
	if err := os.WriteFile(settings, []byte("retention: {logs: 1MB, artifacts: 1MB}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.mlfnode(0, "backup", "--move", file, "--state-dir", old.StateDir, "--config", settings)
	if n, err := node.OpenMaster(t.Context(), old); err == nil {
		n.Close()
		t.Error("the master that was moved starts")
	} else if !strings.Contains(err.Error(), "was moved to another one") {
		t.Errorf("the master that was moved: got error %v", err)
	}
	for _, args := range [][]string{{"sweeps"}, {"token", "list"}, {"members"},
		{"sweep", "--set", "i=1", "--", "true"}} {
		said := c.mlfnode(1, append([]string{args[0], "--state-dir", old.StateDir}, args[1:]...)...)
		if !strings.Contains(said, "was moved to another one") || !strings.Contains(said, "token use --master HOST") {
			t.Errorf("%q of the master that was moved: got\n%s", args, said)
		}
	}
	now := c.settings("new")
	c.mlfnode(0, "restore", file, "--state-dir", now.StateDir, "--config", settings)
	c.startMaster(now)
	c.checkRestored(old, now, done, running, want, operator.Token)
	if next := c.submit("true"); next != "t-3" {
		t.Errorf("a new sweep: got %s, want t-3", next)
	}
}

// TestRestoreRefuses has files that are not complete backups, folders that are in use, and a name
// that a worker has: each is refused with the cause, and leaves the folder as it was.
func TestRestoreRefuses(t *testing.T) {
	c, old, _, _ := newMovingCluster(t)
	file := filepath.Join(t.TempDir(), "backup")
	c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)*2/3] ^= 0x10
	for what, test := range map[string]struct {
		content []byte
		node    string
		want    string
	}{
		"nothing":      {nil, "x", "not a backup"},
		"another file": {[]byte("PK\x03\x04 some archive"), "x", "not a backup"},
		"cut off":      {whole[:len(whole)/2], "x", "nothing was restored"},
		"without end":  {whole[:len(whole)-3], "x", "nothing was restored"},
		"damaged":      {damaged, "x", "nothing was restored"},
		"a worker's":   {whole, "w", "has a worker named w"},
	} {
		t.Setenv("MLF_NODE", test.node)
		state := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(file, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		said := c.mlfnode(map[bool]int{true: 2, false: 1}[test.want == "not a backup"], "restore", file,
			"--state-dir", state)
		if !strings.Contains(said, test.want) {
			t.Errorf("%s: got\n%s\nwant %q in it", what, said, test.want)
		}
		if left, _ := filepath.Glob(filepath.Join(state, "*")); len(left) > 1 || len(left) == 1 &&
			filepath.Base(left[0]) != "lock" {
			t.Errorf("%s leaves %v", what, left)
		}
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if said := c.mlfnode(1, "restore", file, "--state-dir", old.StateDir); !strings.Contains(said,
		"a node is running with the state folder") {
		t.Errorf("over a master that runs: got\n%s", said)
	}
	c.stopMaster()
	if said := c.mlfnode(1, "restore", file, "--state-dir", old.StateDir); !strings.Contains(said,
		"is not empty: it has") {
		t.Errorf("over a master: got\n%s", said)
	}
}

// TestSecondMaster restores a backup while the old master runs, and starts the old one again after
// that; with another name, and with the same one.
func TestSecondMaster(t *testing.T) {
	for _, name := range []grid.NodeID{"new", "old"} {
		t.Run(string(name), func(t *testing.T) {
			c, old, _, _ := newMovingCluster(t)
			until(t, "the master remembers the others", func() bool {
				_, err := os.Stat(filepath.Join(old.StateDir, "cluster.json"))
				return err == nil
			})
			file := filepath.Join(t.TempDir(), "backup")
			c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
			now := c.settings("new")
			now.Node, now.Cluster.Bind, now.Cluster.Advertise, now.Cluster.Ports = name, "127.0.0.68",
				"127.0.0.68", old.Cluster.Ports
			c.mlfnode(0, "restore", file, "--state-dir", now.StateDir)
			refused := func(cfg config.Config, by string) {
				t.Helper()
				if n, err := node.OpenMaster(t.Context(), cfg); err == nil {
					n.Close()
					t.Fatalf("a second master starts beside the one at %s", by)
				} else if want := fmt.Sprintf("another master of this cluster is running at %s:%d", by,
					old.Cluster.Ports.API); !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
			refused(now, "127.0.0.1")
			c.stopMaster()
			c.startMaster(now)
			until(t, "the worker has followed", func() bool {
				all, err := c.client.Members().List(t.Context())
				return err == nil && slices.ContainsFunc(all, func(m api.Member) bool {
					return m.Node == "w" && m.State == "alive"
				})
			})
			until(t, "the worker sees the new master", func() bool {
				for line := range strings.Lines(c.mlfnode(0, "members", "--state-dir", c.workerAs.StateDir)) {
					if f := strings.Fields(line); len(f) > 1 && f[0] == string(name) && f[1] == "alive" &&
						strings.Contains(line, "127.0.0.68") {
						return true
					}
				}
				return false
			})
			refused(old, "127.0.0.68")
			if err := os.WriteFile(c.gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBackupOfAnOlderGossipKey restores a backup at another address after the gossip key has
// changed: the command that changes it says what that means, and a worker with the new seed gets
// the key that is back.
func TestBackupOfAnOlderGossipKey(t *testing.T) {
	c, old, _, running := newMovingCluster(t)
	file := filepath.Join(t.TempDir(), "backup")
	c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
	if said := c.mlfnode(0, "token", "rotate", "--state-dir", old.StateDir); !strings.Contains(said,
		"make a new one now: mlfnode backup FILE") {
		t.Errorf("a new key: got\n%s", said)
	}
	keyring := filepath.Join(c.workerAs.StateDir, "trust", "keyring.json")
	rotated, err := os.ReadFile(keyring)
	if err != nil {
		t.Fatal(err)
	}
	c.stopMaster()
	now := c.settings("new")
	now.Cluster.Ports.Gossip = freePort(t)
	c.mlfnode(0, "restore", file, "--state-dir", now.StateDir)
	c.startMaster(now)
	c.worker.Close()
	c.workerAs.Cluster.Ports, c.workerAs.Cluster.Bind, c.workerAs.Cluster.Advertise = now.Cluster.Ports,
		"127.0.0.69", "127.0.0.69"
	c.workerAs.Cluster.Seed = fmt.Sprintf("127.0.0.1:%d", now.Cluster.Ports.API)
	c.startWorker()
	until(t, "the worker has the key of the backup", func() bool {
		b, err := os.ReadFile(keyring)
		return err == nil && !bytes.Equal(b, rotated)
	})
	if err := os.WriteFile(c.gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.await(running, finished)
	until(t, "the worker is a member", func() bool {
		all, err := c.client.Members().List(t.Context())
		return err == nil && slices.ContainsFunc(all, func(m api.Member) bool {
			return m.Node == "w" && m.State == "alive"
		})
	})
}

// TestRestoreIntoAUsedFolder has files of an earlier node, from which a master would show wrong
// results.
func TestRestoreIntoAUsedFolder(t *testing.T) {
	c, file := newBackup(t)
	for _, name := range []string{"history.db", "history.db-wal", "spool", "jetstream", "snapshots", "shims"} {
		state := filepath.Join(t.TempDir(), "state")
		left := filepath.Join(state, name)
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if said := c.mlfnode(1, "restore", file, "--state-dir", state); !strings.Contains(said,
			"is not empty: it has "+name) {
			t.Errorf("with %s: got\n%s", name, said)
		}
		if b, err := os.ReadFile(left); err != nil || string(b) != "old" {
			t.Errorf("%s was changed: %q, %v", name, b, err)
		}
	}
}

// TestInterruptedRestore has a restore killed after each step of its end. No node may start then:
// one without the cluster's authority would found another cluster on the restored sweeps.
func TestInterruptedRestore(t *testing.T) {
	c, file := newBackup(t)
	moves := []string{"trust", "snapshots", "jetstream"} // the last first; this cluster has no cluster.json
	for back := range len(moves) + 1 {
		now := c.settings("new")
		c.mlfnode(0, "restore", file, "--state-dir", now.StateDir)
		ca := filepath.Join(now.StateDir, "trust", "ca.crt")
		want, err := os.ReadFile(ca)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(now.StateDir, "restoring"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		parts := filepath.Join(now.StateDir, "restore")
		if err := os.Mkdir(parts, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range moves[:back] {
			err := os.Rename(filepath.Join(now.StateDir, name), filepath.Join(parts, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if n, err := node.OpenMaster(t.Context(), now); err == nil {
			n.Close()
			t.Fatalf("%d steps before its end: a master starts", back)
		} else if !strings.Contains(err.Error(), "a restore to the state folder "+now.StateDir+" was interrupted") {
			t.Errorf("%d steps before its end: got %v", back, err)
		}
		if node.RoleOf(now.StateDir) == "" {
			if s, err := node.Attach(t.Context(), now, true, func() {}); err == nil {
				s.Close()
				t.Errorf("%d steps before its end: a node that stands alone starts", back)
			}
		}
		c.mlfnode(0, "restore", file, "--state-dir", now.StateDir)
		c.startMaster(now)
		if got, err := os.ReadFile(ca); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d steps before its end: the cluster has another authority (%v)", back, err)
		}
		c.stopMaster()
	}
}

// newBackup is a backup of a master that has done nothing, in a file.
func newBackup(t *testing.T) (*movingCluster, string) {
	t.Helper()
	for _, key := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"} {
		t.Setenv(key, t.TempDir())
	}
	c := &movingCluster{t: t}
	old, file := c.settings("old"), filepath.Join(t.TempDir(), "backup")
	t.Cleanup(c.stopMaster)
	c.startMaster(old)
	c.stopMaster()
	c.mlfnode(0, "backup", file, "--state-dir", old.StateDir)
	return c, file
}

// readAll gives the files of a stream of artifacts, with what is in them.
func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	err := eachFile(r, func(h *tar.Header, in io.Reader) error {
		content, err := io.ReadAll(in)
		fmt.Fprintf(&b, "%s: %s", h.Name, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
