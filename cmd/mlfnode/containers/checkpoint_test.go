package containers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mlfnode/node/executor/docker/dockertest"
)

// savingScript counts to 60 in steps that it saves, and tells each step and where it began.
const savingScript = `n=0
[ -z "$MLF_RESUME" ] || n=$(cat "$MLF_RESUME/state")
echo "from $n"
trap 'stop=yes' TERM
while [ "$n" -lt 60 ] && [ -z "$stop" ]; do
	sleep 0.2; n=$((n + 1)); echo "step $n"
	echo "$n" >"$MLF_CHECKPOINT/state.new" && busybox mv "$MLF_CHECKPOINT/state.new" "$MLF_CHECKPOINT/state"
done
[ -z "$stop" ] || exit 85
mkdir result && echo "$n" >result/final
`

// TestCheckpointInContainers drains the node of a trial that runs in an image, and kills its
// container on the next node: each time it continues from what it saved, and what it leaves belongs
// to the user of the node.
func TestCheckpointInContainers(t *testing.T) {
	const user = 42421
	a, b, engines := newClusterOf(t, user)
	b.node("join", "--seed", seedOf(a))
	a.until("nodeb", "members")
	r := dockertest.NewRegistry(t)
	r.PushBusybox("lab/train", "1", "x")
	a.project("p", r.Host()+"/lab/train:1", savingScript, `artifacts: ["result/**"]`,
		"checkpoint: {grace: 30s, quiet: 0s}", "retries: {engine: 4}", "parameters: one.yml")
	a.write("p/one.yml", "x: 1\n")
	a.must("sweep", "--detach", "p")
	machines := map[string]*machine{"nodea": a, "nodeb": b}

	first := a.runsOn(t, "")
	machines[first].awaitState(t, 5)
	a.must("drain", first)
	second := a.runsOn(t, first)
	machines[second].awaitState(t, 15)
	e := engines[slices.Index([]string{"nodea", "nodeb"}, second)]
	for _, id := range e.Containers() {
		if err := e.Do("POST", "/containers/"+id+"/kill", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	a.must("undrain", first)
	a.until(`"state":"finished"`, "sweeps", "--json")
	tr := a.results("last")[0]
	if tr.State != "succeeded" {
		t.Fatalf("got %+v, want success", tr)
	}
	a.must("artifacts", "last", "-o", "out")
	files, _ := filepath.Glob(filepath.Join(a.dir, "out", "*", "result", "final"))
	if len(files) != 1 {
		t.Fatalf("got the artifacts %v, want one", files)
	}
	if text, err := os.ReadFile(files[0]); err != nil || string(text) != "60\n" {
		t.Errorf("got %q and %v, want 60", text, err)
	}
	var begun []int
	steps := map[string]int{}
	var printed string
	for attempt := range tr.Attempts {
		printed += a.must("logs", "last/0", "--attempt", fmt.Sprint(attempt+1))
	}
	for line := range strings.Lines(printed) {
		var n int
		if _, err := fmt.Sscanf(line, "from %d", &n); err == nil {
			begun = append(begun, n)
		}
		steps[strings.TrimSpace(line)]++
	}
	if len(begun) != 3 || begun[0] != 0 || begun[1] < 5 || begun[2] < 15 {
		t.Errorf("got attempts that began at %v, want three, each where the one before had saved", begun)
	}
	repeated := 0
	for line, n := range steps {
		if strings.HasPrefix(line, "step ") {
			repeated += n - 1
		}
	}
	if repeated > 1 {
		t.Errorf("got %d steps done twice, want one at most: that which the kill kept from being saved", repeated)
	}
	for _, m := range machines {
		m.belongs(user)
	}
}

// runsOn waits until the trial runs, on another node than this one.
func (m *machine) runsOn(t *testing.T, not string) string {
	t.Helper()
	var on string
	m.eventually("the trial to run", func() bool {
		var all []struct{ State, Node string }
		if json.Unmarshal([]byte(m.must("trials", "last", "--json")), &all) != nil || len(all) != 1 {
			return false
		}
		on = all[0].Node
		return all[0].State == "running" && on != not
	})
	return on
}

// awaitState waits until the trial that runs here has saved so many steps.
func (m *machine) awaitState(t *testing.T, steps int) {
	t.Helper()
	m.eventually("the trial to save its state", func() bool {
		files, _ := filepath.Glob(filepath.Join(m.dir, "state", "mlfnode", "checkpoints", "*", "*", "*", "state"))
		for _, file := range files {
			var n int
			if text, err := os.ReadFile(file); err == nil {
				fmt.Sscan(string(text), &n)
			}
			if n >= steps {
				return true
			}
		}
		return false
	})
}

// belongs checks whose files a machine has.
func (m *machine) belongs(user uint32) {
	m.t.Helper()
	err := filepath.WalkDir(filepath.Join(m.dir, "state"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Sys().(*syscall.Stat_t).Uid != user {
			m.t.Errorf("%s belongs to user %d, want %d", path, info.Sys().(*syscall.Stat_t).Uid, user)
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
}
