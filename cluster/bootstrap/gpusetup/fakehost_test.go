package gpusetup

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap/shell"
)

// fakeHost is a machine made of a folder: its files are under root, and the programs that would
// touch a real machine are stand-ins from testdata/bin, which log their calls to root.log and
// change files under root.
type fakeHost struct {
	t    *testing.T
	root string
}

// newFakeHost gives an Ubuntu with one GPU, its driver and Docker, and no toolkit.
func newFakeHost(t *testing.T) fakeHost {
	t.Helper()
	s := fakeHost{t, filepath.Join(t.TempDir(), "root")}
	if err := os.CopyFS(filepath.Join(s.root, "bin"), os.DirFS("testdata/bin")); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob(s.root + "/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, append([]byte("#!/bin/sh\n"), text...), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.writeDefaults()
	return s
}

func (s fakeHost) writeDefaults() {
	if err := os.MkdirAll(s.root+"/stock", 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.root+"/bin/nvidia-ctk", s.root+"/stock/nvidia-ctk"); err != nil {
		s.t.Fatal(err)
	}
	for path, text := range map[string]string{
		"etc/os-release":                          "ID=ubuntu\nVERSION_ID=\"24.04\"\nPRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\n",
		"proc/modules":                            "nvidia 9707520 2 nvidia_modeset, Live 0x0000000000000000 (POE)\n",
		"proc/driver/nvidia/version":              "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun Mar 30 20:21:04 UTC 2025\n",
		"sys/bus/pci/devices/0000:07:00.0/vendor": "0x10de\n",
		"sys/bus/pci/devices/0000:07:00.0/class":  "0x030200\n",
		"sys/bus/pci/devices/0000:07:00.0/device": "0x20b0\n",
		"run/systemd/system/.keep":                "",
		"usr/.keep":                               "",
		"state/packages":                          "ii |libc6|2.39-0ubuntu8\n",
		"state/containers":                        "",
		"state/served":                            "{}\n",
	} {
		s.write(path, text)
	}
}

func (s fakeHost) write(path, text string) {
	s.t.Helper()
	full := filepath.Join(s.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// read gives a file of the machine, "" for one that is not there.
func (s fakeHost) read(path string) string {
	text, _ := os.ReadFile(filepath.Join(s.root, path))
	return string(text)
}

// calls gives the log of the stand-ins and begins a new one.
func (s fakeHost) calls() string {
	s.t.Helper()
	text, _ := os.ReadFile(s.root + ".log")
	os.Remove(s.root + ".log")
	return string(text)
}

// digest changes when anything on the machine does.
func (s fakeHost) digest() string {
	s.t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(sum, path, i.Mode())
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			fmt.Fprintln(sum, i.ModTime(), len(text), string(text))
			return err
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func (s fakeHost) options(o Options) Options {
	o.hooks = testHooks{root: s.root, pause: "0",
		prelude: "STAGE=" + shell.Quote(s.root) +
			"; PATH=$STAGE/bin:/usr/bin:/bin; DOCKER_HOST=; export STAGE PATH DOCKER_HOST"}
	return o
}

func (s fakeHost) setup(o Options) Report {
	s.t.Helper()
	r, err := Setup(s.t.Context(), shell.Local{}, s.options(o), func(p Step) {
		s.t.Logf("%s %s %s", p.Check, p.Verdict, p.Text)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s fakeHost) expect(r Report, outcome Outcome, changed ...string) {
	s.t.Helper()
	if r.Outcome != outcome || fmt.Sprint(r.Changed) != fmt.Sprint(changed) {
		s.t.Fatalf("got the outcome %q after changing %q, want %q after %q; checks %+v", r.Outcome, r.Changed,
			outcome, changed, r.Checks)
	}
}

// changes are calls that a machine would not be the same after.
func changes(calls string) []string {
	var all []string
	for line := range strings.SplitSeq(calls, "\n") {
		for _, begin := range []string{"apt-get", "systemctl restart", "systemctl reload docker", "systemctl enable",
			"systemctl reboot", "nvidia-ctk runtime", "nvidia-ctk cdi generate"} {
			if strings.HasPrefix(line, begin) {
				all = append(all, line)
			}
		}
	}
	return all
}

func TestFreshMachineBecomesReady(t *testing.T) {
	s := newFakeHost(t)
	r := s.setup(Options{})
	s.expect(r, Ready, "toolkit", "configuration", "cdi")
	if got := r.line("trial").Note; got != "nvidia-smi in a container saw each of 1 GPU" {
		t.Errorf("got the trial %q, want that it saw the GPU", got)
	}
	const list = "deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n"
	if got := s.read("etc/apt/sources.list.d/nvidia-container-toolkit.list"); got != list {
		t.Errorf("got the source %q, want %q", got, list)
	}
	if r.Facts.Injection != "cdi" || r.Facts.Toolkit != DefaultVersion {
		t.Errorf("got facts %+v, want injection by cdi and toolkit %s", r.Facts, DefaultVersion)
	}
	calls := s.calls()
	if !strings.Contains(calls,
		"nvidia-container-toolkit=1.19.1-1 nvidia-container-toolkit-base=1.19.1-1 libnvidia-container-tools=1.19.1-1 libnvidia-container1=1.19.1-1") {
		t.Errorf("got no installation of four pinned packages in\n%s", calls)
	}
	before := s.digest()
	s.expect(s.setup(Options{}), Ready)
	if again := changes(s.calls()); len(again) > 0 || s.digest() != before {
		t.Errorf("got changes %q in the second run, want none", again)
	}
}

// TestLongStepsAreTold says what is under way before it is done: an installation takes minutes.
func TestLongStepsAreTold(t *testing.T) {
	s := newFakeHost(t)
	var begun []string
	done := map[string]bool{}
	_, err := Setup(t.Context(), shell.Local{}, s.options(Options{}), func(p Step) {
		done[p.Check] = done[p.Check] || p.Verdict != ""
		if p.Verdict == "" && p.Program != "" && !done[p.Check] {
			begun = append(begun, p.Check)
		}
	})
	if want := []string{"toolkit", "configuration", "cdi", "trial"}; err != nil || !slices.Equal(begun, want) {
		t.Errorf("got %q, %v as begun, want %q", begun, err, want)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	s := newFakeHost(t)
	before := s.digest()
	r := s.setup(Options{DryRun: true})
	s.expect(r, Fixable)
	if got := changes(s.calls()); len(got) > 0 || s.digest() != before {
		t.Errorf("got changes %q, want none", got)
	}
	for _, name := range []string{"toolkit", "configuration"} {
		if c := r.line(name); c.Verdict != Fix || c.Program == "" || c.As != "sudo -n" {
			t.Errorf("got %+v, want the program that would fix it as root", c)
		}
	}
}

func TestFailingRestartBringsTheOldConfigurationBack(t *testing.T) {
	for name, old := range map[string]string{"a file": "{\n  \"log-driver\": \"journald\"\n}\n", "no file": ""} {
		t.Run(name, func(t *testing.T) {
			s := newFakeHost(t)
			s.write("state/refuse", "")
			if old != "" {
				s.write("etc/docker/daemon.json", old)
			}
			r := s.setup(Options{})
			s.expect(r, Stopped, "toolkit", "configuration")
			if got := s.read("etc/docker/daemon.json"); got != old {
				t.Errorf("got daemon.json %q, want %q back", got, old)
			}
			if s.read("state/served") == "" {
				t.Error("got no running Docker, want it back with its old configuration")
			}
			const want = "Docker did not take its new configuration; the old one is back and Docker runs with it"
			if got := r.line("configuration").Cause; !strings.Contains(got, want) {
				t.Errorf("got the cause %q, want %q in it", got, want)
			}
		})
	}
}

func TestConfigurationKeepsWhatWasThere(t *testing.T) {
	s := newFakeHost(t)
	const old = "{\n  \"log-driver\": \"journald\"\n}\n"
	s.write("etc/docker/daemon.json", old)
	s.expect(s.setup(Options{}), Ready, "toolkit", "configuration", "cdi")
	if got := s.read("etc/docker/daemon.json"); !strings.Contains(got, "journald") ||
		!strings.Contains(got, "nvidia-container-runtime") {
		t.Errorf("got daemon.json %q, want the old entries and the new runtime", got)
	}
	if got := s.read("etc/docker/daemon.json.before-gpu-setup"); got != old {
		t.Errorf("got the backup %q, want %q", got, old)
	}
	if left, _ := filepath.Glob(s.root + "/etc/docker/*.new.*"); len(left) > 0 {
		t.Errorf("got %q left behind, want nothing", left)
	}
}

func TestRunningContainersKeepRunning(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/containers", "c0ffee000001\n")
	r := s.setup(Options{})
	s.expect(r, Stopped, "toolkit")
	if calls := s.calls(); strings.Contains(calls, "systemctl restart docker") ||
		s.read("etc/docker/daemon.json") != "" {
		t.Errorf("got Docker restarted or configured under running containers:\n%s", calls)
	}
	s.expect(s.setup(Options{RestartDocker: true}), Ready, "configuration", "cdi")
	if !strings.Contains(s.calls(), "systemctl restart docker") {
		t.Error("got no restart of Docker with leave to do it")
	}
}

func TestLiveRestoreAllowsTheRestart(t *testing.T) {
	s := newFakeHost(t)
	const live = "{\n  \"live-restore\": true\n}\n"
	s.write("etc/docker/daemon.json", live)
	s.write("state/served", live)
	s.write("state/containers", "c0ffee000001\n")
	s.expect(s.setup(Options{}), Ready, "toolkit", "configuration", "cdi")
	if got := s.read("state/containers"); got != "c0ffee000001\n" {
		t.Errorf("got running containers %q, want them as they were", got)
	}
	if strings.Contains(s.calls(), "daemon-reload") {
		t.Error("got systemd reloaded while containers run, want that it is not tried")
	}
}

func TestContainersThatBeginAfterTheProbe(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/containers", "c0ffee000001\n")
	before := s.digest()
	program := s.options(Options{}.withDefaults()).program(fixConfiguration(host{}, Options{}))
	_, err := shell.Output(t.Context(), shell.Local{}, program, nil)
	if exit, ok := exitError(err); !ok || exit.Code != 4 ||
		exit.Error() != "containers began to run on Docker in the meantime" {
		t.Errorf("got %v, want exit code 4", err)
	}
	os.Remove(s.root + "/etc/docker") // made empty before the look at the containers
	if s.read("etc/docker/daemon.json") != "" || strings.Contains(s.calls(), "restart") {
		t.Errorf("got something changed, want nothing; before %s", before)
	}
}

func TestInvalidConfigurationIsNotTouched(t *testing.T) {
	s := newFakeHost(t)
	const broken = "{\n  \"log-driver\": \"journald\",\n}\n"
	s.write("etc/docker/daemon.json", broken)
	r := s.setup(Options{})
	s.expect(r, Stopped, "toolkit")
	if got := s.read("etc/docker/daemon.json"); got != broken {
		t.Errorf("got daemon.json %q, want it as it was", got)
	}
}

func TestBrokenSourceIsTakenBack(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/broken", "")
	const list = "etc/apt/sources.list.d/nvidia-container-toolkit.list"
	r := s.setup(Options{})
	s.expect(r, Stopped, "toolkit")
	if got := s.read(list); got != "" {
		t.Errorf("got the source %q left, want none", got)
	}
	if got := r.line("toolkit").Cause; !strings.Contains(got, "E: The repository is not signed.") {
		t.Errorf("got the cause %q, want apt's words in it", got)
	}
	s.write(list, "# the owner's\n")
	s.setup(Options{})
	if got := s.read(list); got != "# the owner's\n" {
		t.Errorf("got the source %q, want the one from before back", got)
	}
}

func TestLockOfAptIsWaitedFor(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/locked", "2\n")
	s.expect(s.setup(Options{}), Ready, "toolkit", "configuration", "cdi")
	s = newFakeHost(t)
	s.write("state/locked", "1000000\n")
	r := s.setup(Options{LockWait: time.Second})
	s.expect(r, Stopped, "toolkit")
	if got := r.line("toolkit").Cause; !strings.Contains(got, "It is held by process 81234") {
		t.Errorf("got the cause %q, want who holds the lock", got)
	}
}

func TestLeftoversAreSetAside(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/packages", "ii |nvidia-docker2|2.13.0-1\n")
	s.write("etc/apt/sources.list.d/nvidia-docker.list",
		"deb https://nvidia.github.io/nvidia-docker/ubuntu18.04/$(ARCH) /\n")
	s.write("usr/share/containers/oci/hooks.d/oci-nvidia-hook.json", "{}\n")
	s.expect(s.setup(Options{}), Ready, "leftovers", "toolkit", "configuration", "cdi")
	if got := s.read(backupDir + "/_etc_apt_sources.list.d_nvidia-docker.list"); !strings.Contains(got,
		"nvidia-docker/ubuntu18.04") {
		t.Errorf("got the old source %q in %s, want it kept", got, backupDir)
	}
	if got := s.read("etc/apt/sources.list.d/nvidia-docker.list"); got != "" {
		t.Errorf("got the old source %q still in use, want it gone", got)
	}
}

func TestWithoutRootNothingIsTried(t *testing.T) {
	s := newFakeHost(t)
	s.write("state/nosudo", "")
	before := s.digest()
	r := s.setup(Options{})
	s.expect(r, Stopped)
	if got := r.line("toolkit"); got.Verdict != Stop || !strings.Contains(got.Cause, "only root could change that") ||
		s.digest() != before {
		t.Errorf("got %+v, want a stop that needs root, and nothing changed", got)
	}
}
