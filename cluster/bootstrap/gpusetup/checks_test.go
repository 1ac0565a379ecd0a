package gpusetup

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recorded is a machine that answers every program with one probe.
type recorded struct{ text string }

func (r recorded) Run(_ context.Context, program string, _ io.Reader, stdout io.Writer) error {
	if !strings.HasSuffix(program, probeProgram) {
		return errors.New("this machine can only be probed")
	}
	_, err := io.WriteString(stdout, r.text)
	return err
}

func (recorded) Close() error { return nil }

// situation reads a probe from testdata. A file that begins with "#base NAME" has only the sections
// that differ.
func situation(t testing.TB, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(content), "\n")
	base, ok := strings.CutPrefix(first, "#base ")
	if !ok {
		return string(content)
	}
	replaced := sections(rest)
	var b strings.Builder
	for _, s := range strings.SplitAfter("\n"+situation(t, base), "\n=") {
		head, _, _ := strings.Cut(s, "\n")
		if body, ok := replaced[head]; ok {
			s = head + "\n" + body + "="
		}
		b.WriteString(s)
	}
	return strings.TrimPrefix(b.String(), "\n")
}

func sections(text string) map[string]string {
	all := map[string]string{}
	for s := range strings.SplitSeq("\n"+text, "\n=") {
		head, body, _ := strings.Cut(s, "\n")
		if body != "" && !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		all[head] = body
	}
	return all
}

// recordedAt is when the recorded machines were probed.
func recordedAt() time.Time { return time.Unix(1764107000, 0) }

func judgeRecorded(t testing.TB, name string, o Options) Report {
	t.Helper()
	o.DryRun, o.now = true, recordedAt
	r, err := Setup(t.Context(), recorded{situation(t, name)}, o, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

func (r Report) line(name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{Name: name}
}

func TestJudges(t *testing.T) {
	tests := []struct {
		situation, check string
		verdict          Verdict
		text             string // in the cause, or in the note where there is no cause
		outcome          Outcome
	}{
		{"ubuntu2404-ready", "driver", OK, "driver 570.133.20, 2 GPUs", Ready},
		{"ubuntu2404-ready", "toolkit", OK, "NVIDIA container toolkit 1.19.1", Ready},
		{"ubuntu2404-ready", "cdi", OK, "CDI 0.5.0 names 2 devices", Ready},
		{"debian13-ready", "platform", OK, "Debian GNU/Linux 13 (trixie), amd64", Ready},
		{"open-module", "driver", OK, "driver 570.133.20", Ready},
		{"mig", "cdi", Fix, "MIG-4f1c6a6e-7b0d-5d0e-8f3c-2a9a6e1f0b77, MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
			Fixable},
		{"ubuntu2204-fresh", "toolkit", Fix, "is not installed", Fixable},
		{"ubuntu2204-fresh", "configuration", Fix, "Docker does not know the NVIDIA runtime", Fixable},
		{"ubuntu2204-fresh", "cdi", Skip, "not installed yet", Fixable},
		{"debian11-fresh", "platform", OK, "bullseye", Fixable},
		{"debian12-fresh", "toolkit", Fix, "is not installed", Fixable},
		{"ubuntu1804", "platform", Stop, "Ubuntu 18.04.6 LTS is too old", Stopped},
		{"fedora42", "platform", Stop, "this is Fedora Linux 42 (Server Edition)", Stopped},
		{"no-gpu", "hardware", OK, "no GPU", NoGPU},
		{"driver-without-gpu", "hardware", Warn, "an NVIDIA driver is installed, but there is no NVIDIA GPU", NoGPU},
		{"no-driver", "driver", Stop, "there is a GPU, but no NVIDIA driver", Stopped},
		{"nouveau", "driver", Stop, "the free driver nouveau runs the GPU", Stopped},
		{"nouveau-before-restart", "driver", Stop, "nouveau still runs", Stopped},
		{"mismatch", "driver", Stop, "was updated under its running kernel module (570.133.20)", Stopped},
		{"secure-boot", "driver", Stop, "Secure Boot is on", Stopped},
		{"not-built", "driver", Stop,
			"not built for this kernel, 6.8.0-60-generic, whose headers are missing", Stopped},
		{"not-loaded", "driver", Stop, "its kernel module is not loaded", Stopped},
		{"no-smi", "driver", Stop, "but nvidia-smi is not there", Stopped},
		{"lost-gpu", "hardware", Warn, "2 NVIDIA GPUs on the PCI bus, but nvidia-smi lists 1", Ready},
		{"driver-update-waits", "driver", Warn, "another one (570.172.08) waits for a restart", Ready},
		{"wsl2", "driver", OK, "driver 572.83, 1 GPU", Ready},
		{"wsl2", "platform", OK, "in WSL2", Ready},
		{"wsl2-two-gpus", "cdi", OK, "names 2 devices", Ready},
		{"tegra", "platform", Stop, "Tegra (Jetson)", Stopped},
		{"container-with-gpu", "platform", Warn, "this machine is a container", Plain},
		{"container-without-gpu", "driver", Stop, "GPUs of its host were not given to it", Stopped},
		{"docker-none", "engine", OK, "tasks run as plain processes", Plain},
		{"docker-client", "engine", OK, "no server", Plain},
		{"docker-silent", "engine", Stop, "its server does not answer (Cannot connect to the Docker daemon", Stopped},
		{"docker-refused", "engine", Stop, "the user ada may not talk to Docker", Stopped},
		{"docker-snap", "engine", Stop, "snap store", Stopped},
		{"docker-desktop", "engine", Stop, "Docker Desktop", Stopped},
		{"docker-rootless", "engine", Stop, "rootless", Stopped},
		{"docker-remote", "engine", Warn, "ssh://ada@gpu8", Plain},
		{"docker-podman", "engine", Warn, "docker is Podman here", Plain},
		{"docker-old", "engine", Stop, "Docker 18.09.1 is too old", Stopped},
		{"containers-run", "configuration", Stop, "would end its 2 running containers", Stopped},
		{"containers-run-live", "configuration", Fix, "does not know the NVIDIA runtime", Fixable},
		{"daemon-invalid", "configuration", Stop, "line 4: invalid character '}'", Stopped},
		{"daemon-not-restarted", "configuration", Fix, "was not restarted since", Fixable},
		{"old-runtime", "configuration", Fix, "does not know the NVIDIA runtime", Fixable},
		{"leftovers", "leftovers", Fix,
			"nvidia-docker2, /etc/apt/sources.list.d/nvidia-docker.list, /etc/apt/trusted.gpg.d/nvidia-docker.gpg, /usr/share/containers/oci/hooks.d/oci-nvidia-hook.json",
			Fixable},
		{"source-in-main-list", "leftovers", Stop, "/etc/apt/sources.list names NVIDIA's repository", Stopped},
		{"toolkit-old", "toolkit", Fix, "1.13.5 is older than 1.18.0", Fixable},
		{"toolkit-part", "toolkit", Fix,
			"missing: nvidia-container-toolkit, libnvidia-container-tools, libnvidia-container1", Fixable},
		{"toolkit-mixed", "toolkit", Fix, "differ in version", Fixable},
		{"no-network", "toolkit", Stop, "cannot be reached from the machine (curl: (28)", Stopped},
		{"apt-locked", "platform", Warn, "process 81234 holds apt's lock", Fixable},
		{"no-sudo", "access", Warn, "the user ada cannot become root", Fixable},
		{"clock-wrong", "access", Warn, "the machine's clock is -2h1m0s from this one's", Ready},
		{"cdi-none", "cdi", Fix, "there is no CDI specification", Fixable},
		{"cdi-stale", "cdi", Fix, "older than the driver", Fixable},
		{"cdi-disabled", "cdi", Fix, "not rewritten", Fixable},
		{"cdi-too-new", "cdi", Warn, "Docker 24.0.7 does not understand the CDI 0.7.0", Ready},
		{"cdi-twice", "cdi", Warn, "/etc/cdi/nvidia.yaml and /var/run/cdi/nvidia.yaml", Ready},
	}
	for _, tt := range tests {
		t.Run(tt.situation+"/"+tt.check, func(t *testing.T) {
			r := judgeRecorded(t, tt.situation, Options{Image: "-"})
			got := r.line(tt.check)
			said := got.Cause
			if said == "" {
				said = got.Note
			}
			if got.Verdict != tt.verdict || !strings.Contains(said, tt.text) {
				t.Errorf("got %s %q, want %s %q", got.Verdict, said, tt.verdict, tt.text)
			}
			if r.Outcome != tt.outcome {
				t.Errorf("got the outcome %q, want %q; checks %+v", r.Outcome, tt.outcome, r.Checks)
			}
			if (got.Verdict == Stop || got.Verdict == Warn) && (got.Cause == "" || got.Cure == "") {
				t.Errorf("got the cause %q with the cure %q, want both", got.Cause, got.Cure)
			}
			if strings.Contains(got.Cure, "NOPASSWD") || strings.Contains(got.Cure, "sudo without") &&
				!strings.Contains(got.Cure, "afterwards") {
				t.Errorf("got the cure %q, which leaves the rights of root to a user for good", got.Cure)
			}
		})
	}
}

func TestEverySituationIsJudged(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("got %d situations and error %v, want 40 and more", len(files), err)
	}
	for _, f := range files {
		r := judgeRecorded(t, strings.TrimSuffix(filepath.Base(f), ".txt"), Options{Image: "-"})
		if r.Outcome == "" || len(r.Changed) > 0 {
			t.Errorf("%s: got outcome %q and changes %q, want a verdict without changes", f, r.Outcome, r.Changed)
		}
	}
}

func TestLeave(t *testing.T) {
	if got := judgeRecorded(t, "containers-run",
		Options{RestartDocker: true}).line("configuration"); got.Verdict != Fix ||
		!strings.Contains(got.Program, "FORCE='1'") {
		t.Errorf("got %s with leave to restart Docker, want fix by force", got.Verdict)
	}
	if got := judgeRecorded(t, "mismatch", Options{Reboot: true}).line("driver"); got.Verdict != Fix ||
		!strings.Contains(got.Program, "systemctl reboot") {
		t.Errorf("got %s with leave to restart the machine, want fix", got.Verdict)
	}
	if got := judgeRecorded(t, "ubuntu2404-ready", Options{Version: "1.18.2"}).line("toolkit"); got.Verdict != Fix ||
		!strings.Contains(got.Program, "VERSION='1.18.2-1'") {
		t.Errorf("got %s for another version, want fix", got.Verdict)
	}
}

func TestFacts(t *testing.T) {
	tests := []struct{ situation, injection, engine string }{
		{"ubuntu2404-ready", "cdi", "docker 28.3.3"},
		{"cdi-too-new", "runtime", "docker 24.0.7"},
		{"docker-none", "none", ""},
		{"docker-podman", "none", "podman"},
	}
	for _, tt := range tests {
		f := judgeRecorded(t, tt.situation, Options{}).Facts
		if f.Injection != tt.injection || f.Engine != tt.engine || !f.Plain {
			t.Errorf("%s: got injection %q, engine %q, plain %v; want %q, %q, true", tt.situation, f.Injection,
				f.Engine, f.Plain, tt.injection, tt.engine)
		}
		if len(f.GPUs) != 2 || f.GPUs[1].Model != "NVIDIA A100-SXM4-40GB" ||
			f.Driver != "570.133.20" || f.CUDA != "12.8" {
			t.Errorf("%s: got facts %+v", tt.situation, f)
		}
	}
}

func TestTrialVerdicts(t *testing.T) {
	h := parse(situation(t, "ubuntu2404-ready"))
	a, b := h.devices[0].uuid, h.devices[1].uuid
	tests := []struct {
		said    string
		verdict Verdict
		text    string
	}{
		{"inside " + a + " " + a + "\ninside " + b + " " + b + "\n", OK, "saw each of 2 GPUs"},
		{"inside " + a + " " + a + "\n", Stop, "saw no GPU"},
		{"inside " + a + " " + a + "\ninside " + b + " " + a + "\n", Stop, "a container for " + b + " saw " + a},
		{"start " + a + " could not select device driver", Stop, "did not start: could not select device driver"},
		{"image missing\n", Skip, "cannot be pulled"},
		{"inside " + a + " " + a + "\nreloaded " + a + " Failed to initialize NVML: Unknown Error\n", Warn,
			"lost " + a},
	}
	for _, tt := range tests {
		got := evaluateSmokeTest(h, tt.said)
		if got.Verdict != tt.verdict || !strings.Contains(got.Cause+got.Note, tt.text) {
			t.Errorf("%q: got %s %q, want %s %q", tt.said, got.Verdict, got.Cause+got.Note, tt.verdict, tt.text)
		}
	}
}

// FuzzJudges feeds what no machine says; no judge may panic, and each gives a verdict.
func FuzzJudges(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(situation(f, strings.TrimSuffix(filepath.Base(file), ".txt")))
	}
	o := Options{}.withDefaults()
	f.Fuzz(func(t *testing.T, text string) {
		h := parse(text)
		for _, c := range table() {
			if got := c.evaluate(h, o); got.Verdict == "" {
				t.Errorf("got no verdict from %s for %q", c.name, text)
			}
			if c.fix != nil {
				c.fix(h, o)
			}
			if c.trial != nil {
				c.trial(h, o)
			}
		}
		evaluateSmokeTest(h, text)
		h.facts(recordedAt())
	})
}
