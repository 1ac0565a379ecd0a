package overssh

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
)

// testOldExample runs the example of the old system, where one of the machines was never seen
// before.
func testOldExample(t *testing.T, d *day) {
	ada := d.ada(t)
	d.forget(d.machines[1])
	up := ada.onTerminal("up", "-a", "host1,host2,host3", "-r", "ML", "-d", "chainer", "-m", "1", "-w", "2,3")
	up.Expect(d.machines[1].SSH.Fingerprint("ed25519"))
	up.Type("yes")
	screen := ada.ends(up, 0)
	wantAll(t, screen, "joined, started")
	if !strings.HasPrefix(screen, "host2 was never seen before. ") {
		t.Errorf("want the question first, and no table above it:\n%s", screen)
	}
	ada.awaitsMembers(3)
	wantAll(t, ada.does("sweep", "chainer", "echo", "--set", "n=1,2,3,4"), "host2", "host3", "chainer-1 finished: ")
	wantStates(t, ada.does("up", "-f"), 3, "unchanged")
	var all []hosts.Member
	ada.asks(&all, "members")
	d.cpus = strconv.FormatFloat(all[0].CPUs/2, 'g', -1, 64) // all machines are this one
}

// testTakenDown takes the cluster down: commands say so, and nothing runs or is made on the laptop.
func testTakenDown(t *testing.T, d *day) {
	ada := d.ada(t)
	ada.does("down")
	d.nothingLeft("ML")
	file := filepath.Join(home(d.laptop.Host), "cluster.yaml")
	for _, args := range [][]string{{"results", "chainer-1"}, {"sweeps"}, {"members"}, {"token"},
		{"sweep", "--", "true"}, {"sweep", "-d", "chainer", "echo"}} {
		wantAll(t, ada.exits(1, args...), "the cluster of host1 was taken down on ",
			"start it with: mlfnode up -f "+file+"; --local runs on this machine alone")
	}
	state := filepath.Join(home(d.laptop.Host), ".local/state/mlfnode")
	entries, err := os.ReadDir(state)
	if err != nil || len(entries) != 1 || entries[0].Name() != "examples" { // chainer's files are there
		t.Errorf("a command for a cluster that is down has left %v in %s (%v)", entries, state, err)
	}
	status := ada.exits(1, "status")
	wantNone(t, status, "FAILED", "is not running")
	wantAll(t, status, "start it with: mlfnode up -f\n")
	if n := strings.Count(status, "stopped since "); n != 3 {
		t.Errorf("%d machines are stopped, want 3", n)
	}
	wantStates(t, ada.does("up", "-f"), 3, "started")
	ada.does("status")
	wantLine(t, ada.does("sweeps"), "chainer-1", "finished")
	ada.does("results", "chainer-1")
}

const trainProgram = `import argparse, os
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float)
p.add_argument("--hidden", type=int, default=8)
a = p.parse_args()
os.makedirs("out")
with open("out/log.csv", "w") as f:
    f.write("epoch,acc\n")
    for epoch in range(3):
        f.write(f"{epoch},{(a.hidden - abs(a.lr - 0.1)) / 100 + epoch / 1000}\n")
print("trained with", a.lr, a.hidden)
`

// testOwnScript runs a program with a command line and a log in CSV, which travels with its folder.
func testOwnScript(t *testing.T, d *day) {
	ada := d.ada(t)
	d.laptop.WriteFile("digits/train.py", trainProgram)
	out := ada.in("digits").does("sweep", "--set", "lr=0.01,0.1,1", "--set", "hidden=8,32", "--metric",
		"log:out/log.csv", "--objective", "acc:max",
		"--artifact", "out/**", "--", "python3", "-u", "train.py")
	wantAll(t, out, "train-1 finished: 6 of 6 succeeded", "best acc: 0.322 by train-1/3")
	wantLine(t, ada.does("results", "last", "--best", "1"), "3*", "0.322")
	ada.does("artifacts", "last", "-o", "arts")
	if files := named(t, filepath.Join(home(d.laptop.Host), "arts"), "log.csv"); len(files) != 6 {
		t.Errorf("got the files %q, want one of each trial", files)
	}
	ada.in("digits").does("sweep", "--quiet", "--set", "lr=0.1", "--set", "hidden=8,64", "--metric", "log:out/log.csv",
		"--", "python3", "-u", "train.py")
	wantAll(t, ada.does("compare", "train-1", "train-2"), "train-1", "train-2", "0.082")
	wantAll(t, ada.in("digits").does("sweep", "--set", "lr=1", "--", "sh", "-c", `python3 train.py "$@"`, "train"),
		"trained with 1.0 8")
	wantAll(t, ada.does("extend", "train-1", "--set", "lr=10"), "train-1 finished: 8 of 8 succeeded")
}

// testMetricsAndLimits names a log that the program does not write, and runs a trial that takes too
// long.
func testMetricsAndLimits(t *testing.T, d *day) {
	ada := d.ada(t).in("digits")
	wantAll(t, ada.exits(1, "sweep", "--set", "lr=1", "--metric", "log:out/metrics.log", "--objective", "acc:max", "--",
		"python3", "train.py"),
		"metrics.log out/metrics.log: the program did not write it", "has a number for acc, the objective")
	wantAll(t, ada.exits(1, "sweep", "--timeout", "1s", "--retries", "1", "--set", "s=30", "--", "sleep", "{s}"),
		"ran longer than its limit of 1s")
	if all := ada.trialsOf("last", "failed"); len(all) != 1 || all[0].Attempts != 2 {
		t.Errorf("got %+v, want two attempts", all)
	}
}

// testLargeFile runs trials in a folder with much data: it goes to the master and to each worker
// once, and trials leave no copies.
func testLargeFile(t *testing.T, d *day) {
	const size = 24 << 20
	ada := d.ada(t)
	data := make([]byte, size)
	rand.Read(data) // it never fails
	d.laptop.WriteFile("large/data.bin", string(data))
	counted := []*hosts.Host{d.laptop.Host, d.machines[1], d.machines[2]}
	var before, between []int64
	for i := range 2 {
		for _, h := range counted {
			n := traffic(t, h, h == d.laptop.Host)
			if i == 0 {
				before = append(before, n)
			} else {
				between = append(between, n)
			}
		}
		ada.in("large").does("sweep", "--cpus", d.cpus, "--set", "i=0:4", "--", "sh", "-c",
			"wc -c <data.bin; sleep 0.5")
	}
	for i, h := range counted {
		after := traffic(t, h, h == d.laptop.Host)
		t.Logf("%s: %d kB went over the network in the first sweep, %d kB in the second", h.Name,
			(between[i]-before[i])/1000, (after-between[i])/1000)
		if h == d.laptop.Host && between[i]-before[i] < size || after-before[i] > size*3/2 {
			t.Errorf("%s: want %d kB once", h.Name, size/1000)
		}
	}
	for _, h := range d.machines[:3] {
		hosts.WaitFor(t, hosts.Timeout, func() error {
			if files := named(t, filepath.Join(home(h), "ML", "state"), "data.bin"); len(files) > 1 {
				return fmt.Errorf("%s: the copies %q are left", h.Name, files)
			}
			return nil
		})
	}
}

// traffic is how many bytes a machine has sent or received, see /proc/net/dev in proc_net(5).
func traffic(t *testing.T, h *hosts.Host, sent bool) int64 {
	t.Helper()
	r := h.Run(h.Program("/bin/cat", "/proc/net/dev"))
	_, line, _ := strings.Cut(r.Stdout, "eth0:")
	fields, column := strings.Fields(line), 0
	if sent {
		column = 8
	}
	n, err := strconv.ParseInt(fields[column], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// testSetupOnce edits a comment between two sweeps: the setup step, which does not read it, has run
// once on each node.
func testSetupOnce(t *testing.T, d *day) {
	ada := d.ada(t)
	d.laptop.WriteFile("fit/project.yaml",
		"tasks:\n  fit:\n    command: [sh, fit.sh]\n    setup: {run: \"sh setup.sh\", inputs: [setup.sh, needs.txt]}\n"+
			"    resources: {cpus: "+d.cpus+"}\n    parameters: parameters.yml\n")
	d.laptop.WriteFile("fit/parameters.yml", "k: [1, 2, 3, 4]\n")
	d.laptop.WriteFile("fit/needs.txt", "numpy\n")
	d.laptop.WriteFile("fit/setup.sh", "echo built >>$HOME/ML/built\nmkdir env\ncp needs.txt env/has\n")
	for i := range 2 {
		d.laptop.WriteFile("fit/fit.sh", fmt.Sprintf("# edit %d\necho fit with $(cat env/has)\nsleep 0.5\n", i))
		wantAll(t, ada.does("sweep", "fit"), "fit with numpy", "4 of 4 succeeded")
	}
	built := 0
	for _, h := range d.machines[1:3] {
		n := lines(t, h, "ML/built")
		if built += n; n > 1 {
			t.Errorf("%s: the setup step ran %d times", h.Name, n)
		}
	}
	if built == 0 {
		t.Error("the setup step never ran")
	}
}

// testOldProject imports a project of the old system and runs it.
func testOldProject(t *testing.T, d *day) {
	ada := d.ada(t)
	for name, text := range map[string]string{
		"tasks.py":       "@app.task(bind=True, acks_late=True)\ndef train(self, parameters):\n    cmd = [\"python3\", \"-u\", \"old/prog.py\"]\n    return run(self, cmd, parameters)\n",
		"default.py":     "base_pars = {\"verbose\": \"1\"}\nmatrix = yaml2Matrix(\"old/parameters.yml\")\nfor p in matrix:\n    train.delay(p)\n",
		"parameters.yml": "lr: [0.1, 0.01]\nepoch: !!python/tuple [1, 3]\n",
		"prog.py":        "import sys\nprint(*sys.argv[1:])\n",
	} {
		d.laptop.WriteFile("old/"+name, text)
	}
	ada.does("import", "old")
	wantAll(t, ada.does("sweep", "old"), "--verbose=1 --lr=0.01 --epoch=2", "4 of 4 succeeded")
}

// testMendedProgram finds a bug, edits the program, and runs what had failed, first as it was.
func testMendedProgram(t *testing.T, d *day) {
	ada := d.ada(t)
	d.laptop.WriteFile("bug/project.yaml", "tasks:\n  bug: {command: [sh, run.sh], parameters: parameters.yml}\n")
	d.laptop.WriteFile("bug/parameters.yml", "k: [1, 2, 3]\n")
	d.laptop.WriteFile("bug/run.sh", "echo old $1\ntest $1 = --k=1 || { echo 'no such layer' >&2; exit 1; }\n")
	wantAll(t, ada.exits(1, "sweep", "bug"), "1 of 3 succeeded, 2 failed", "no such layer")
	wantLine(t, ada.does("trials", "bug-1", "--state", "failed"), "1", "no such layer")
	d.laptop.WriteFile("bug/run.sh", "echo mended $1\n")
	wantAll(t, ada.exits(1, "retry", "--failed", "bug-1"), "bug-1 runs the files as submitted on ",
		"not as they are now; --update packs them again", "old --k=2")
	out := ada.does("retry", "--failed", "--update", "bug-1")
	wantAll(t, out, "bug-1: 2 trials run with the files of ", "mended --k=2", "bug-1 finished: 3 of 3 succeeded",
		"these trials ran 2 versions of the files")
	wantNone(t, out, "mended --k=1")
	wantAll(t, ada.does("show", "bug-1"), "sh run.sh", "by ada on laptop")
}

// testBrokenSetup runs a setup step that can't work: it is tried three times, not for each trial.
func testBrokenSetup(t *testing.T, d *day) {
	ada := d.ada(t)
	d.laptop.WriteFile("broken/project.yaml",
		"tasks:\n  broken: {command: [\"true\"], setup: \"echo tried >>$HOME/ML/tried; echo no such package; exit 1\", parameters: parameters.yml}\n")
	d.laptop.WriteFile("broken/parameters.yml", "k: {start: 0, end: 40}\n")
	wantAll(t, ada.exits(1, "sweep", "broken"), "setup failed ", "no such package")
	wantLine(t, ada.does("sweeps"), "broken-1", "paused")
	tried := lines(t, d.machines[1], "ML/tried") + lines(t, d.machines[2], "ML/tried")
	if tried < 2 || tried > 4 { // another one may run when the third fails
		t.Errorf("the setup step ran %d times", tried)
	}
	ada.exits(1, "resume", "broken-1")
	if n := lines(t, d.machines[1], "ML/tried") + lines(t, d.machines[2], "ML/tried"); n <= tried {
		t.Error("resume did not try again")
	}
	ada.does("cancel", "broken-1")
}

// testLeaveAndReturn watches a sweep, presses Ctrl-C, closes the terminal, and disconnects the
// laptop: trials go on, and resume brings the bar back.
func testLeaveAndReturn(t *testing.T, d *day) {
	ada := d.ada(t)
	watch := ada.onTerminal(append([]string{"sweep"}, d.gated("night", 4)...)...)
	watch.Expect("4 running")
	watch.Press("\x03")
	wantAll(t, ada.ends(watch, 130), " in the cluster; ", "mlfnode logs -f ")
	watch = ada.onTerminal("resume", "night")
	watch.Expect("4 of 4 trials left")
	watch.Expect("] 0/4 · 4 running")
	watch.HangUp()
	t.Logf("the terminal is closed: exit code %d", watch.Exit(hosts.Timeout))
	watch = ada.onTerminal("resume", "night")
	watch.Expect("] 0/4 · 4 running")
	d.laptop.Network.Disconnect()
	d.open(t, "night", 0, 4)
	wait(4 * time.Second)
	d.laptop.Network.Reconnect()
	screen := ada.ends(watch, 0)
	wantAll(t, screen, " finished: 4 of 4 succeeded")
	for i := range 4 {
		wantAll(t, screen, fmt.Sprintf("/%d | end %d", i, i))
	}
	wantFirst(t, ada.awaits("night", "succeeded", 4))
}

// kill kills the processes of a machine whose command line has this in it.
func kill(t *testing.T, h *hosts.Host, command string) {
	t.Helper()
	found := false
	for _, p := range h.Processes.List() {
		if strings.Contains(p.Command, command) {
			found = true
			t.Logf("on %s: kill -9 %d (%s)", h.Name, p.PID, p.Command)
			if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Fatalf("%s runs no %q: %+v", h.Name, command, h.Processes.List())
	}
}
