package guarantees

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// gpuTrial has memory of the GPU that it was given for a while, and tells a ledger. The script is
// what its node's GPUs follow.
const gpuTrial = `mark=$1 ledger=$2 script=$3.$HOSTNAME pause=$4
[ -n "$CUDA_VISIBLE_DEVICES" ] || exit 9
echo "run $CUDA_VISIBLE_DEVICES $$ 2GiB" >>"$script"
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $CUDA_VISIBLE_DEVICES begin" >>"$ledger"
for ((n = 0; n < pause; n++)); do sleep 0.1; done
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $CUDA_VISIBLE_DEVICES end" >>"$ledger"`

// gpuScenario is a cluster whose hosts have GPUs that do what scripts say.
type gpuScenario struct {
	*scenario
	script string // with the name of a host: what its GPUs do
}

func newGPUScenario(t *testing.T, n int, description string) *gpuScenario {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster takes its time, and its programs are not those that -race looks at")
	}
	dir := t.TempDir()
	scripted := filepath.Join(dir, "mlfnode")
	if out, err := exec.Command("go", "build", "-tags", "fakegpus", "-o", scripted,
		"mlfnode/cmd/mlfnode").CombinedOutput(); err != nil {
		t.Fatalf("build mlfnode: %v\n%s", err, out)
	}
	script := filepath.Join(dir, "gpus")
	return &gpuScenario{script: script, scenario: newScenario(t, n, hosts.Options{Program: scripted, Env: []string{
		"MLF_FAKE_GPUS=" + description, "MLF_FAKE_GPUS_SCRIPT=" + script,
	}})}
}

// say has a host's GPUs follow lines of a script.
func (sc *gpuScenario) say(host string, lines ...string) {
	sc.t.Helper()
	f, err := os.OpenFile(sc.script+"."+host, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		sc.t.Fatal(err)
	}
}

// train starts a sweep of count trials with a GPU each, of so many tenths of a second.
func (sc *gpuScenario) train(count, tenths int) {
	sc.t.Helper()
	sc.trainWith("gpus: 1", count, tenths)
}

// trainWith is train for trials that ask for this, with more flags of the command sweep.
func (sc *gpuScenario) trainWith(resources string, count, tenths int, flags ...string) {
	sc.t.Helper()
	sc.count, sc.lines, sc.ledger = count, 0, ledger{sc.t, sc.newFile("ledger")}
	project := sc.newFile("project")
	command, err := json.Marshal([]string{"bash", "-c", gpuTrial, "trial", sc.mark, sc.ledger.path, sc.script,
		strconv.Itoa(tenths)})
	if err != nil {
		sc.t.Fatal(err)
	}
	text := fmt.Sprintf("name: gpus\ntasks:\n  train:\n    command: %s\n    resources: {cpus: 0.1, %s}\n", command,
		resources)
	if err := os.MkdirAll(project, 0o755); err != nil {
		sc.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(project, "project.yaml"), []byte(text), 0o644); err != nil {
		sc.t.Fatal(err)
	}
	flags = append([]string{"sweep", "--detach", project, "--set", fmt.Sprintf("i=0:%d", count)}, flags...)
	sc.sweep = grid.SweepID(strings.TrimSpace(sc.Master.Must(flags...)))
}

// explained waits until the explanation of a sweep's first trial has these parts.
func (sc *gpuScenario) explained(of grid.SweepID, parts ...string) {
	sc.t.Helper()
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		said := sc.Master.Must("trials", "--explain", string(of)+"/0")
		for _, part := range parts {
			if !strings.Contains(said, part) {
				return fmt.Errorf("%q is not in\n%s", part, said)
			}
		}
		return nil
	})
}

// device asks a host for the state of another one's GPU.
func (sc *gpuScenario) device(from *hosts.Host, host string, index int) (api.GPU, error) {
	var all []api.GPU
	if err := json.Unmarshal([]byte(from.Must("gpus", "--json")), &all); err != nil {
		return api.GPU{}, err
	}
	i := slices.IndexFunc(all, func(g api.GPU) bool { return string(g.Node) == host && g.Index == index })
	if i < 0 {
		return api.GPU{}, fmt.Errorf("%s lists no GPU %d of %s", from.Name, index, host)
	}
	return all[i], nil
}

// awaitDevice waits until a host's own node says that its GPU is in a state.
func (sc *gpuScenario) awaitDevice(h *hosts.Host, index int, state, why string) {
	sc.t.Helper()
	hosts.WaitFor(sc.t, hosts.Timeout, func() error {
		g, err := sc.device(h, h.Name, index)
		if err == nil && (g.State != state || !strings.Contains(g.Why, why)) {
			err = fmt.Errorf("GPU %d of %s is %q: %q, want %q: %q", index, h.Name, g.State, g.Why, state, why)
		}
		return err
	})
}

// checkDevices fails if two trials had one GPU at a time, or a trial had one of these. It gives how
// often each was used.
func (sc *gpuScenario) checkDevices(but ...string) map[string]int {
	sc.t.Helper()
	text, err := os.ReadFile(sc.ledger.path)
	if err != nil {
		sc.t.Fatal(err)
	}
	now, used := map[string]string{}, map[string]int{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		trial, uuid := f[2], f[3]
		if f[4] == "end" {
			delete(now, uuid)
			continue
		}
		if other := now[uuid]; other != "" {
			sc.t.Errorf("%s begins on %s, which %s has", trial, uuid, other)
		}
		if slices.Contains(but, uuid) {
			sc.t.Errorf("%s had %s", trial, uuid)
		}
		now[uuid] = trial
		used[uuid]++
	}
	return used
}

// TestNoDeviceTwice is the guarantee of that name: no GPU is given to two trials at a time,
// whatever happens to agents, and none that is in use by others, broken or gone is given to any.
func TestNoDeviceTwice(t *testing.T) {
	t.Parallel()
	p := newGPUScenario(t, 3, "2xA100-40")
	p.train(18, 15)
	p.ledger.waitForStarted(6)
	victim := p.Hosts[1]
	victim.Agent.Kill()
	p.Relaunch(victim)
	p.checkAll()
	if used := p.checkDevices(); len(used) != 6 {
		t.Errorf("%d of 6 GPUs were used: %v", len(used), used)
	}
	attempts, seen := 0, false
	for _, tr := range p.trials(p.client(p.Master)) {
		attempts += tr.Attempts
		use := tr.Usage.GPUs
		if len(use) != 1 || use[0].Memory != 0 && use[0].Memory != 2<<30 {
			t.Errorf("trial %d used %+v of its GPU, want 2 GiB, or nothing when nobody could look in time", tr.Index,
				use)
		}
		seen = seen || len(use) > 0 && use[0].Memory > 0
	}
	if shown := p.Master.Must("trials", string(p.sweep)+"/0"); !strings.Contains(shown, " of GPU-") {
		t.Errorf("trials shows\n%s", shown)
	}
	if !seen {
		t.Error("nobody has seen what a trial used of its GPU")
	}
	if attempts != 18 {
		t.Errorf("%d attempts for 18 trials: those of the agent that died were not taken back", attempts)
	}
}

// lockTrial locks a file of each of its GPUs for as long as it lives, and tells when somebody else
// has the lock. It starts no process that could outlive it with the lock.
const lockTrial = `mark=$1 ledger=$2
fd=20
for uuid in ${CUDA_VISIBLE_DEVICES//,/ }; do
	eval "exec $fd>$ledger.$uuid"
	flock -n $fd || echo "$MLF_TRIAL $uuid" >>"$ledger.twice"
	fd=$((fd + 1))
done
echo "$EPOCHREALTIME $HOSTNAME $MLF_TRIAL $CUDA_VISIBLE_DEVICES begin" >>"$ledger"
exec 9<>"$ledger.wait"
read -rt 1.5 -u 9
exit 0`

// TestNoDeviceTwiceUnderKills kills agents and shims of programs again and again, while trials with
// one GPU and with two run.
func TestNoDeviceTwiceUnderKills(t *testing.T) {
	t.Parallel()
	p := newGPUScenario(t, 3, "3xA100-40")
	p.count, p.lines, p.ledger = 24, 0, ledger{t, p.newFile("ledger")}
	if err := syscall.Mkfifo(p.ledger.path+".wait", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, gpus := range []int{2, 1} {
		project := p.newFile("project")
		command, err := json.Marshal([]string{"bash", "-c", lockTrial, "trial", p.mark, p.ledger.path})
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("name: gpus\ntasks:\n  train:\n    command: %s\n    resources: {cpus: 0.1, gpus: %d}\n",
			command, gpus)
		if err := os.MkdirAll(project, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(project, "project.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		p.sweep = grid.SweepID(strings.TrimSpace(p.Master.Must("sweep", "--detach", project, "--set",
			fmt.Sprintf("i=0:%d", p.count))))
	}
	for round := range 4 {
		p.ledger.waitForStarted(6 * (round + 1))
		victim := p.Hosts[1+round%2]
		if round%2 == 1 { // its programs die with it
			for _, pid := range shims(victim) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			}
			continue
		}
		victim.Agent.Kill()
		p.Relaunch(victim)
	}
	for _, id := range []string{"gpus-1", "gpus-2"} {
		p.sweep = grid.SweepID(id)
		p.finish(3 * time.Minute)
	}
	if twice, err := os.ReadFile(p.ledger.path + ".twice"); err == nil {
		t.Errorf("GPUs were given twice:\n%s", twice)
	}
}

// TestDeviceStates takes GPUs away from trials in each way that there is, and gives them back.
func TestDeviceStates(t *testing.T) {
	t.Parallel()
	p := newGPUScenario(t, 2, "4xA100-40")
	worker := p.Hosts[1]
	other := worker.StartCommand(worker.Program("/bin/sh", "-c", "echo run 0 $$ 3GiB >>"+p.script+"."+worker.Name+
		"; exec sleep 300"))
	p.say(worker.Name, "xid 1 48", "gone 2")
	p.awaitDevice(worker, 0, "foreign", "used by sleep (pid ")
	p.awaitDevice(worker, 1, "sick", "Xid 48")
	p.awaitDevice(worker, 2, "gone", "does not show it")
	p.awaitDevice(worker, 3, "ready", "")
	var bad []string
	for i := range 3 {
		g, err := p.device(worker, worker.Name, i)
		if err != nil {
			t.Fatal(err)
		}
		bad = append(bad, g.UUID)
	}
	p.train(12, 3)
	p.checkAll()
	p.checkDevices(bad...)
	if shown := worker.Must("gpus"); !strings.Contains(shown, "uncorrected memory error") {
		t.Errorf("gpus shows\n%s", shown)
	}
	// Others hear of it in the exchange of states.
	hosts.WaitFor(t, hosts.Timeout, func() error {
		g, err := p.device(p.Master, worker.Name, 1)
		if err == nil && g.State != "sick" {
			err = fmt.Errorf("the master says that it is %q", g.State)
		}
		return err
	})
	p.Master.Must("drain", "host2")
	p.Master.Must("undrain", "host2")
	other.Kill()
	p.say(worker.Name, "back 2")
	p.awaitDevice(worker, 1, "ready", "")
	hosts.WaitFor(t, time.Minute, func() error {
		g, err := p.device(worker, worker.Name, 0)
		if err == nil && g.State != "ready" {
			err = fmt.Errorf("GPU 0 is %s: %s", g.State, g.Why)
		}
		return err
	})
	p.train(24, 5)
	p.checkAll()
	if used := p.checkDevices(bad[2]); used[bad[1]] == 0 {
		t.Errorf("the GPU that was sick is not used: %v", used)
	}
}

// TestExplainedDevices asks why a trial waits, on nodes whose GPU is taken, sick, gone, or used by
// others, and on one that is drained.
func TestExplainedDevices(t *testing.T) {
	p := newGPUScenario(t, 3, "1xA100-40")
	sick, other := p.Hosts[1], p.Hosts[2]
	p.say(sick.Name, "xid 0 48")
	user := other.StartCommand(other.Program("/bin/sh", "-c", "echo run 0 $$ 3GiB >>"+p.script+"."+other.Name+
		"; exec sleep 300"))
	p.awaitDevice(sick, 0, "sick", "Xid 48")
	p.awaitDevice(other, 0, "foreign", "used by sleep (pid ")
	p.train(1, 3000)
	p.ledger.waitForStarted(1)
	runs := p.sweep
	p.train(1, 1)
	waits := p.sweep
	p.explained(runs, "it runs on host1 since")
	p.explained(waits, "no node has taken it",
		"host1: 0 GPUs free, and a trial needs 1 GPU (busy)", "host2: ", "Xid 48", "(sick)", "host3: ", "used by sleep",
		"(foreign)")
	p.Master.Must("drain", "host1")
	p.say(other.Name, "gone 0")
	p.explained(waits, "host1: is drained", "(drained)", "does not show it any more", "(gone)")
	user.Kill()
	p.Master.Must("cancel", string(waits))
	p.Master.Must("cancel", string(runs))
	p.sweep = runs
}

// TestExplainedRefusals asks why trials wait: for want of room on any one GPU, behind others, on a
// node that is too small, on one where they have failed, and on one that is broken.
func TestExplainedRefusals(t *testing.T) {
	t.Parallel()
	p := newGPUScenario(t, 3, "2xA100-40")
	small := p.Hosts[2]
	settings := p.newFile("node.yaml")
	if err := os.WriteFile(settings, []byte("gpus: {use: [0]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	small.Agent.Kill()
	small.Agent.Start("--config", settings, "join", "--seed", p.Master.Name)
	p.awaitDevice(small, 1, "unused", "")

	const full = `[ $HOSTNAME != host2 ] || { echo "OSError: [Errno 28] No space left on device" >&2; exit 1; }; sleep 1`
	sweep := strings.TrimSpace(p.Master.Must("sweep", "--detach", "--set", "i=0:9", "--", "bash", "-c", full))
	hosts.WaitFor(t, 2*time.Minute, func() error {
		said := ""
		for i := range 9 {
			said = p.Master.Must("trials", "--explain", fmt.Sprintf("%s/%d", sweep, i))
			if strings.Contains(said, "host2: an attempt of it failed here, so it is to run elsewhere (avoid)") {
				return nil
			}
		}
		return fmt.Errorf("no trial avoids host2; the last says\n%s", said)
	})
	hosts.WaitFor(t, 3*time.Minute, func() error {
		if said := p.Master.Must("members"); !strings.Contains(said, "quarantine") {
			return fmt.Errorf("nobody is quarantined:\n%s", said)
		}
		return nil
	})

	var held []grid.SweepID
	for range 3 {
		p.trainWith("gpus: 0.6", 1, 3000)
		p.ledger.waitForStarted(1)
		held = append(held, p.sweep)
	}
	p.trainWith("gpus: 2", 1, 1, "--priority", "5")
	big := p.sweep
	p.explained(big, "host1: ", "(busy)", "host2: ",
		"(quarantined)", "host3: has 1 GPU, and a trial needs 2 GPUs (never)")
	p.trainWith("gpus: 0.5", 1, 1)
	waits := p.sweep
	p.explained(waits, "(fragment)", "(quarantined)", "(busy)")
	for _, id := range held {
		p.sweep = id
		if p.trials(p.client(p.Master))[0].Node == "host1" {
			p.Master.Must("cancel", string(id))
			break
		}
	}
	p.explained(waits, "host1: ", "(behind)", "(quarantined)", "(busy)")
	for _, id := range append(held, big, waits) {
		p.Master.Must("cancel", string(id))
	}
}

// TestTrialsShareGPUs has trials with gpu_memory: auto be measured on the GPUs of three nodes, and
// then share them.
func TestTrialsShareGPUs(t *testing.T) {
	p := newGPUScenario(t, 3, "1xA100-40")
	p.trainWith("gpu_memory: auto", 24, 120)
	p.checkAll()
	text, err := os.ReadFile(p.ledger.path)
	if err != nil {
		t.Fatal(err)
	}
	on, most, ended := map[string]int{}, 0, 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[4] == "end" {
			on[f[3]]--
			ended++
			continue
		}
		if on[f[3]]++; ended < 3 && on[f[3]] > 1 {
			t.Errorf("%d trials share %s before three have been measured", on[f[3]], f[3])
		}
		most = max(most, on[f[3]])
	}
	if most < 2 || most > 8 {
		t.Errorf("at most %d trials shared a GPU, want two at least", most)
	}
	if shown := p.Master.Must("sweeps", "--json"); !strings.Contains(shown, " trials on a GPU") {
		t.Errorf("sweeps --json shows\n%s", shown)
	}
}
