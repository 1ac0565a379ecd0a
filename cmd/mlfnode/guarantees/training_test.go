package guarantees

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestCheckpointChainer stops the training of the chainer example in every way: its log is that of
// a training without a stop, and no epoch is done twice beyond the last snapshot.
func TestCheckpointChainer(t *testing.T) {
	t.Parallel()
	p := training{newScenario(t, 3, hosts.Options{})}
	defer p.logAttempts()
	dir := p.makeProject()
	train := func() {
		t.Helper()
		p.count = 1
		p.sweep = grid.SweepID(strings.TrimSpace(p.Master.Must("sweep", "--detach", dir)))
	}
	// losses gives the loss of each epoch of the result, and how many epochs all attempts have done
	// together.
	losses := func() (all []string, done int) {
		t.Helper()
		p.finish(settle)
		c := p.client(p.Master)
		checkResults(t, p.trials(c), 1, grid.Succeeded)
		text := p.artifact(c, "result/log")
		var log []map[string]json.RawMessage
		if err := json.Unmarshal(text, &log); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for _, entry := range log {
			all = append(all, string(entry["epoch"])+" "+string(entry["main/loss"])+" "+
				string(entry["validation/main/loss"]))
		}
		attempts, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: p.sweep, Index: 0})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attempts {
			done += p.epochs(c, a.Attempt)
		}
		return all, done
	}
	train()
	want, epochs := losses()
	if len(want) != chainerEpochs || epochs != chainerEpochs {
		t.Fatalf("without a stop: got %d losses of %d epochs, want %d", len(want), epochs, chainerEpochs)
	}
	for _, c := range []struct {
		name   string
		inject func(on *hosts.Host)
		twice  bool // epochs since the last snapshot may be done twice
	}{
		{"moved by a drain", func(on *hosts.Host) {
			p.Master.Must("drain", on.Name)
		}, false},
		{"paused", func(*hosts.Host) {
			p.Master.Must("pause", string(p.sweep))
			p.atRest()
			p.Master.Must("resume", "--detach", string(p.sweep))
		}, false},
		{"agent killed", func(on *hosts.Host) {
			on.Agent.Kill()
			p.Relaunch(on)
		}, false},
		{"node killed", func(on *hosts.Host) {
			hosts.WaitFor(t, hosts.Timeout, func() error {
				if dirs, _ := filepath.Glob(filepath.Join(p.Master.StateDir(), "snapshots", string(p.sweep), "0",
					"[0-9]*.json")); len(dirs) == 0 {
					return errors.New("no snapshot of the running trial is stored")
				}
				return nil
			})
			on.PowerCut()
			p.finish(settle)
			on.Boot()
			p.Relaunch(on)
		}, true},
	} {
		p.Master.Must("drain", p.Master.Name)
		train()
		on := p.waitForEpochs(3)
		p.Master.Must("undrain", p.Master.Name)
		c.inject(on)
		got, epochs := losses()
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got the losses\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !c.twice && epochs != chainerEpochs || epochs >= 2*chainerEpochs {
			t.Errorf("%s: %d epochs were done for %d", c.name, epochs, chainerEpochs)
		}
		p.Master.Must("undrain", on.Name)
		p.allAlive()
		t.Logf("%s: the same losses, after %d epochs for %d", c.name, epochs, chainerEpochs)
	}
}

// chainerEpochs is how long the training of the test is.
const chainerEpochs = 20

// training is a scenario whose trial is the training of the chainer example.
type training struct{ *scenario }

// makeProject makes a copy of the example project whose programs find their packages without a
// network.
func (tr training) makeProject() string {
	tr.t.Helper()
	dir := tr.newFile("chainer")
	if err := os.CopyFS(dir, os.DirFS("../../../projects/chainer")); err != nil {
		tr.t.Fatal(err)
	}
	setup := exec.Command("python3", "-B", "-c", "import mkvenv; print(mkvenv.ensure(mkvenv.pick_python()))")
	setup.Dir = dir
	out, err := setup.Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			tr.t.Fatalf("the packages of the chainer example can't be installed: %v", err)
		}
		tr.t.Skip("the packages of the chainer example can't be installed here")
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	python := filepath.Join(lines[len(lines)-1], "bin", "python3")
	project := fmt.Sprintf(`name: chainer
tasks:
  train:
    command: [%q, "-u", "slowly.py"]
    constants: {epoch: %d, unit: 30, batchsize: 100, gpu: "-1", out: result}
    env: {OMP_NUM_THREADS: "1", MLF_BACKEND: numpy}
    checkpoint: {grace: 2m, every: 200ms, quiet: 50ms}
    artifacts: ["result/**"]
    metrics: {log: result/log}
`, python, chainerEpochs)
	slowly := `import time, train_mnist
train_epoch = train_mnist.train_epoch
def slow(*args):
    time.sleep(0.3)
    return train_epoch(*args)
train_mnist.train_epoch = slow
train_mnist.main()
`
	for name, text := range map[string]string{"project.yaml": project, "slowly.py": slowly,
		"parameters.yml": "seed: 3\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			tr.t.Fatal(err)
		}
	}
	return dir
}

// epochs counts the lines of the training's table that an attempt has printed.
func (tr training) epochs(c *api.Client, attempt int) (n int) {
	tr.t.Helper()
	text := ""
	for o, err := range c.Logs().Stream(tr.t.Context(), tr.sweep, api.LogQuery{Index: 0, Attempt: attempt}) {
		if err != nil {
			tr.t.Fatal(err)
		}
		if o.Stream == "stdout" {
			text += string(o.Data)
		}
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 6 && f[0] != "epoch" {
			n++
		}
	}
	return n
}

// waitForEpochs waits until the training has done so many epochs, and gives where it runs.
func (tr training) waitForEpochs(n int) (on *hosts.Host) {
	tr.t.Helper()
	c := tr.client(tr.Master)
	hosts.WaitFor(tr.t, hosts.Timeout, func() error {
		attempts, err := c.Trials().Attempts(tr.t.Context(), grid.TrialID{Sweep: tr.sweep, Index: 0})
		if err != nil || len(attempts) == 0 {
			return errors.Join(err, errors.New("the training has not begun"))
		}
		last := attempts[len(attempts)-1]
		if got := tr.epochs(c, last.Attempt); got < n {
			return fmt.Errorf("%d epochs are done, want %d", got, n)
		}
		on = tr.Host(string(last.Node))
		return nil
	})
	return on
}

// artifact gives a file that the trial has left.
func (tr training) artifact(c *api.Client, name string) []byte {
	tr.t.Helper()
	r, err := c.Trials().Artifacts(tr.t.Context(), tr.sweep, 0)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer r.Close()
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if err != nil {
			tr.t.Fatalf("no artifact %s: %v", name, err)
		}
		if h.Name == "0/"+name {
			text, err := io.ReadAll(files)
			if err != nil {
				tr.t.Fatal(err)
			}
			return text
		}
	}
}
