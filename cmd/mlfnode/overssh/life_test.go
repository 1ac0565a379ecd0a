package overssh

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// three are the words of a cluster of three hosts.
var three = []string{"up", "-a", "host1,host2,host3", "-r", "ML", "-m", "1", "-w", "1,2,3"}

// wantLine fails unless a line of the text begins with the first word and holds the others.
func wantLine(t *testing.T, text string, words ...string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == words[0] &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return
		}
	}
	t.Errorf("no line with %q in:\n%s", words, text)
}

// TestHostIsMissing leaves a host out at first, and another one at the end.
func TestHostIsMissing(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	l.Hosts[2].SSH.Stop()
	r := l.laptop.Try(three...)
	if r.Code != 1 || !strings.Contains(r.Stderr,
		"host3: host3 refuses connections on port 22\n  try: start the ssh server there, or give the right port") {
		t.Errorf("exit code %d, want 1 and the cause:\n%s", r.Code, r.Stderr)
	}
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.Hosts[2].SSH.Start()
	out := l.laptop.Must("up", "-f")
	wantLine(t, out, "host1", "unchanged")
	wantLine(t, out, "host2", "unchanged")
	wantLine(t, out, "host3", "joined")
	if n := l.members(); n != 3 {
		t.Errorf("%d nodes are alive, want 3", n)
	}
	l.Hosts[1].SSH.Stop()
	if r := l.laptop.Try("status"); r.Code != 1 || !strings.Contains(r.Stderr, "host2: host2 refuses connections") {
		t.Errorf("status: exit code %d, want 1 and the cause:\n%s", r.Code, r.Stderr)
	}
	if r := l.laptop.Try("down"); r.Code != 1 {
		t.Errorf("down: exit code %d, want 1:\n%s", r.Code, r.Stderr)
	}
	l.Hosts[1].SSH.Start()
	l.laptop.Must("down")
	l.nothingLeft("ML")
}

// TestRestartOverSSH restarts a cluster under running trials.
func TestRestartOverSSH(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	l.laptop.Must(three...)
	l.laptop.Must("sweep", "--detach", "--set", "i=1:4", "--", "sh", "-c", "echo begin; sleep 12; echo end")
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := len(l.trials("running")); n != 3 {
			return fmt.Errorf("%d trials run, want 3", n)
		}
		return nil
	})
	out := l.laptop.Must("restart")
	for _, h := range []string{"host1", "host2", "host3"} {
		wantLine(t, out, h, "restarted")
	}
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := len(l.trials("succeeded")); n != 3 {
			return fmt.Errorf("%d trials succeeded, want 3", n)
		}
		return nil
	})
	for _, tr := range l.trials("succeeded") {
		if tr.Attempts != 1 {
			t.Errorf("trial %d took %d attempts, want the first to survive", tr.Index, tr.Attempts)
		}
	}
	for _, h := range []string{"host1", "host2", "host3"} {
		wantLine(t, l.laptop.Must("status"), h, "background", "alive", "working")
	}
	r := l.laptop.Try("restart", "nosuch")
	if want := "mlfnode: there is no host \"nosuch\" in the cluster\n  try: one of: host1, host2, host3\n"; r.Code != 1 || r.Stderr != want {
		t.Errorf("got %d, %q, want %q", r.Code, r.Stderr, want)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

type trial struct {
	Index, Attempts int
	Node            string
}

func (hs *harness) trials(state string) []trial {
	var all struct{ Trials []trial }
	text := hs.laptop.Must("trials", "last", "--state", state, "--json")
	if err := json.Unmarshal([]byte(text), &all); err != nil && json.Unmarshal([]byte(text), &all.Trials) != nil {
		hs.t.Fatalf("%v:\n%s", err, text)
	}
	return all.Trials
}

// TestPush brings what has changed, and nothing else.
func TestPush(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1)
	l.laptop.WriteFile("mine/run.sh", "echo 1\n")
	l.laptop.WriteFile("mine/data.txt", "1\n")
	l.laptop.WriteFile("mine/project.yaml",
		"name: mine\ntasks:\n  run: {command: [sh, run.sh], parameters: parameters.yml}\n")
	l.laptop.WriteFile("mine/parameters.yml", "i: 1\n")
	wantLine(t, l.laptop.Must("up", "-a", "host1", "-r", "ML", "-d", "mine", "-m", "1", "-w", "1"),
		"host1", "pushed 4 files")
	wantLine(t, l.laptop.Must("push"), "host1", "unchanged")
	l.laptop.WriteFile("mine/data.txt", "2\n")
	wantLine(t, l.laptop.Must("push"), "host1", "pushed 1 file")
	pushed := filepath.Join(l.Hosts[0].Accounts.Home(hosts.DefaultUser), "ML", "projects", "mine", "data.txt")
	if r := l.Hosts[0].Run(l.Hosts[0].Program("/bin/cat", pushed)); r.Stdout != "2\n" {
		t.Errorf("got %q, want the new content", r.Stdout)
	}
	l.laptop.Must("down")
}

// TestThisMachine has the laptop take part as the master.
func TestThisMachine(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1)
	l.laptop.Must("up", "-a", "host1", "-r", "ML", "-m", "local", "-w", "local,1")
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("down")
	l.nothingLeft("ML")
	if left := l.laptop.Processes.Leftovers(); len(left) > 0 {
		t.Errorf("processes are left on the laptop: %v", left)
	}
}

// TestAttachOverSSH attaches a worker to a master that up has not started here.
func TestAttachOverSSH(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.Must("up", "-a", "host1", "-r", "ML", "-m", "1")
	home := l.Hosts[0].Accounts.Home(hosts.DefaultUser)
	made := l.Hosts[0].Run(l.Hosts[0].Accounts.As(hosts.DefaultUser,
		l.Hosts[0].Program(home+"/ML/bin/mlfnode", "token", "--json", "--state-dir", home+"/ML/state")))
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(made.Stdout), &token); err != nil {
		t.Fatalf("%v: %s", err, made.Stderr)
	}
	cmd := l.laptop.Command("up", "-a", "host2", "-r", "ML", "-w", "1", "-b", "host1")
	cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+token.Token)
	if r := l.laptop.Run(cmd); r.Code != 0 {
		t.Fatalf("exit code %d:\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	hosts.WaitFor(t, hosts.Timeout, func() error { // the master hears of the new node by gossip
		if n := l.members(); n != 2 {
			return fmt.Errorf("%d nodes are alive, want 2", n)
		}
		return nil
	})
	l.laptop.Must("down")
	l.laptop.Must("down", "-f", "cluster.yaml.old")
	l.nothingLeft("ML")
}

// TestDryRun changes nothing anywhere.
func TestDryRun(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1)
	out := l.laptop.Must("up", "-a", "host1", "-m", "1", "--dry-run")
	wantLine(t, out, "host1", "would install mlfnode")
	l.nothingLeft("")
	if r := l.laptop.Try("status"); r.Code != 2 ||
		!strings.Contains(r.Stderr, "there is no cluster.yaml in this folder") {
		t.Errorf("got %d, %q, want that there is no cluster", r.Code, r.Stderr)
	}
}

// TestOnATerminal answers the question for a fingerprint, sees the table, and interrupts.
func TestOnATerminal(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.forget(l.Hosts[0])
	up := l.laptop.OnTerminal(l.laptop.Command("up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "2"))
	up.Expect(l.Hosts[0].SSH.Fingerprint("ed25519"))
	up.Type("yes")
	if code, screen := up.Close(hosts.Timeout); code != 0 || !strings.Contains(screen, "joined, started") {
		t.Errorf("exit code %d, want 0 and a table:\n%s", code, screen)
	}
	l.laptop.Must("down", "--purge", "--yes")
	up = l.laptop.OnTerminal(l.laptop.Command("up", "-f"))
	up.Expect("install")
	up.Press("\x03")
	if code, screen := up.Close(hosts.Timeout); code != 130 {
		t.Errorf("exit code %d, want 130:\n%s", code, screen)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestGPUSetupWithoutGPU says clearly that there is none, with the exit code of success.
func TestGPUSetupWithoutGPU(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1)
	out := l.laptop.Must("gpu-setup", "host1", "--dry-run")
	wantLine(t, out, "host1:", "no GPU")
	l.nothingLeft("")
}

// TestTwentyHosts comes up whole.
func TestTwentyHosts(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 20)
	var names, numbers []string
	for i := range 20 {
		names, numbers = append(names, fmt.Sprintf("host%d", i+1)), append(numbers, fmt.Sprint(i+1))
	}
	began := time.Now()
	l.laptop.Must("up", "-a", strings.Join(names, ","), "-r", "ML", "-m", "1", "-w", strings.Join(numbers, ","))
	t.Logf("up of 20 hosts took %v", time.Since(began))
	if n := l.members(); n != 20 {
		t.Errorf("%d nodes are alive, want 20", n)
	}
	began = time.Now()
	l.laptop.Must("up", "-f")
	t.Logf("a second up took %v", time.Since(began))
	began = time.Now()
	l.laptop.Must("down")
	t.Logf("down took %v", time.Since(began))
	l.nothingLeft("ML")
}
