package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"

	"mlfnode/grid"
	"mlfnode/node/executor/docker/dockertest"
)

const (
	gpuA = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
	gpuB = "GPU-bbbbbbbb-0000-0000-0000-000000000000"
	migA = "MIG-cccccccc-0000-0000-0000-000000000000"
)

// machine makes a /proc with two GPUs; the one with the higher minor number comes first on the bus.
func machine(t *testing.T) string {
	t.Helper()
	proc := t.TempDir()
	for i, uuid := range []string{gpuB, gpuA} {
		writeFile(t, filepath.Join(proc, "driver/nvidia/gpus", fmt.Sprintf("0000:0%d:00.0", i), "information"),
			fmt.Sprintf("Model: \t\t NVIDIA A100\nGPU UUID: \t %s\nDevice Minor: \t %d\n", uuid, 1-i))
	}
	return proc
}

// spec writes a CDI specification with devices NAME=FILE,FILE. The first argument may be its
// version.
func spec(t *testing.T, dir, file string, devices ...string) {
	t.Helper()
	version := "0.5.0"
	if !strings.Contains(devices[0], "=") {
		version, devices = devices[0], devices[1:]
	}
	text := "cdiVersion: " + version + "\nkind: nvidia.com/gpu\ndevices:\n"
	for _, d := range devices {
		name, nodes, _ := strings.Cut(d, "=")
		text += fmt.Sprintf("- name: %q\n  containerEdits:\n    deviceNodes:\n", name)
		for n := range strings.SplitSeq(nodes, ",") {
			text += "    - path: " + n + "\n"
		}
	}
	writeFile(t, filepath.Join(dir, file), text)
}

func TestCDINames(t *testing.T) {
	byUUID := []string{gpuA + "=/dev/nvidia0,/dev/nvidia-uvm", gpuB + "=/dev/nvidia1",
		migA + "=/dev/nvidia-caps/nvidia-cap3,/dev/nvidia0", "all=/dev/nvidia0,/dev/nvidia1"}
	byIndex := []string{"0=/dev/nvidia1", "1=/dev/nvidia0", "1:0=/dev/nvidia0", "all=/dev/nvidia0,/dev/nvidia1"}
	tests := map[string]struct {
		etc, run, discovered []string
		old                  bool
		uuids                []string
		want                 string // names without their kind; empty if refused
	}{
		"by UUID":      {etc: byUUID, uuids: []string{gpuB, gpuA}, want: gpuB + " " + gpuA},
		"MIG by UUID":  {etc: byUUID, uuids: []string{migA}, want: migA},
		"by index":     {etc: byIndex, uuids: []string{gpuA, gpuB}, want: "1 0"},
		"MIG by index": {etc: byIndex, uuids: []string{migA}},
		"later folder": {etc: []string{"0=/dev/nvidia0"}, run: []string{"0=/dev/nvidia1"},
			uuids: []string{gpuB}, want: "0"},
		"unknown":               {etc: byUUID, uuids: []string{gpuA, "GPU-other"}},
		"no specification":      {uuids: []string{gpuA}},
		"one device":            {etc: []string{"all=/dev/nvidia0,/dev/nvidia1"}, uuids: []string{gpuA}},
		"engine knows":          {etc: byIndex, discovered: []string{gpuA}, uuids: []string{gpuA}, want: gpuA},
		"engine does not know":  {etc: byUUID, discovered: []string{gpuB}, uuids: []string{gpuA}},
		"too new":               {etc: append([]string{"0.7.0"}, byUUID...), old: true, uuids: []string{gpuA}},
		"new":                   {etc: append([]string{"0.7.0"}, byUUID...), uuids: []string{gpuA}, want: gpuA},
		"engine knows by index": {etc: byIndex, discovered: []string{"0", "1"}, uuids: []string{gpuB}, want: "0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			etc, run := t.TempDir(), t.TempDir()
			if tt.etc != nil {
				spec(t, etc, "nvidia.yaml", tt.etc...)
			}
			if tt.run != nil {
				spec(t, run, "nvidia.yaml", tt.run...)
			}
			writeFile(t, filepath.Join(etc, "vendor.json"),
				`{"cdiVersion": "0.5.0", "kind": "example.com/net", "devices": [{"name": "`+gpuA+`"}]}`)
			writeFile(t, filepath.Join(etc, "README.txt"), "kind: [nonsense")
			g := gpuAccess{cdi: true, beforeCDI07: tt.old, specDirs: []string{etc, run, filepath.Join(etc, "none")},
				procDir: machine(t)}
			for _, d := range tt.discovered {
				g.discovered = append(g.discovered, cdiKind+d)
			}
			names, err := g.cdiNames(tt.uuids)
			if got := strings.ReplaceAll(strings.Join(names, " "), cdiKind, ""); got != tt.want ||
				(err != nil) != (tt.want == "") {
				t.Errorf("got %q and %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestDamagedSpecificationIsExplained(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "nvidia.yaml"), "kind: [nvidia.com/gpu\n")
	if _, err := readCDI([]string{dir}, false); err == nil || !strings.Contains(err.Error(), "nvidia.yaml") {
		t.Errorf("got %v, want the file's name", err)
	}
}

func TestGPURequestFitsTheEngine(t *testing.T) {
	dir := t.TempDir()
	spec(t, dir, "nvidia.json", gpuA+"=/dev/nvidia0")
	with := func(runtimes ...string) *system.Info {
		info := &system.Info{Runtimes: map[string]system.RuntimeWithStatus{}}
		for _, r := range runtimes {
			info.Runtimes[r] = system.RuntimeWithStatus{}
		}
		return info
	}
	cdi := with("runc")
	cdi.CDISpecDirs = []string{dir}
	tests := map[string]struct {
		info           *system.Info
		podman, mode   string
		uuids          []string
		driver, id     string // of the device request
		runtime, shown string
		refused        bool
	}{
		"no GPUs":              {info: cdi, shown: "void"},
		"not wanted":           {info: cdi, mode: GPUsNone, uuids: []string{gpuA}, shown: "void"},
		"CDI":                  {info: cdi, uuids: []string{gpuA}, driver: "cdi", id: cdiKind + gpuA, shown: "void"},
		"CDI does not know it": {info: cdi, uuids: []string{gpuB}, driver: "nvidia", id: gpuB},
		"CDI must":             {info: cdi, mode: GPUsCDI, uuids: []string{gpuB}, refused: true},
		"request although CDI": {info: cdi, mode: GPUsRequest, uuids: []string{gpuA}, driver: "nvidia", id: gpuA},
		"Docker 20.10":         {info: with("runc", "nvidia"), uuids: []string{gpuA}, driver: "nvidia", id: gpuA},
		"Docker 20.10, CDI":    {info: with("runc", "nvidia"), mode: GPUsCDI, uuids: []string{gpuA}, refused: true},
		"Podman 4.3":           {info: with("runc"), podman: "4.3.1", uuids: []string{gpuA}, refused: true},
		"Podman 4.3 with ours": {info: with("runc", "nvidia"), podman: "4.3.1", uuids: []string{gpuA},
			runtime: "nvidia", shown: gpuA},
		"Podman 5.4, none here": {info: with("runc"), podman: "5.4.0",
			uuids: []string{"GPU-not-in-any-file"}, refused: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, h := &container.Config{Env: []string{"NVIDIA_VISIBLE_DEVICES=all"}}, &container.HostConfig{}
			err := newGPUAccess(tt.info, tt.podman).attach(tt.mode, tt.uuids, c, h)
			if tt.refused {
				var f *EngineError
				if !errors.As(err, &f) || f.Class != grid.ClassEngine || !strings.Contains(f.Reason, "nvidia-ctk") {
					t.Errorf("got %v, want class engine with the remedy", err)
				}
				return
			}
			driver, id := "", ""
			if len(h.DeviceRequests) == 1 {
				r := h.DeviceRequests[0]
				driver, id = r.Driver, strings.Join(r.DeviceIDs, " ")
				if r.Count != 0 || (r.Driver == "cdi") != (r.Capabilities == nil) {
					t.Errorf("got %+v, want capabilities for the driver alone, and no count", r)
				}
			}
			shown := tt.shown
			if shown == "" {
				shown = "all" // set by the driver
			}
			if err != nil || driver != tt.driver || id != tt.id || h.Runtime != tt.runtime ||
				!slices.Contains(c.Env, "NVIDIA_VISIBLE_DEVICES="+shown) {
				t.Errorf("got %v, %+v, %q, %v", err, h.DeviceRequests, h.Runtime, c.Env)
			}
		})
	}
}

func TestMissingGPUs(t *testing.T) {
	g := gpuAccess{procDir: machine(t)}
	dev := filepath.Join(g.procDir, "77/root/dev")
	writeFile(t, filepath.Join(dev, "nvidia0"), "")
	for _, tt := range []struct {
		pid   int
		uuids []string
		want  string
	}{
		{77, []string{gpuA}, ""},
		{77, []string{gpuA, gpuB}, gpuB},
		{77, []string{migA}, migA},
		{77, []string{"GPU-the-driver-does-not-list"}, ""},
		{78, []string{gpuA}, ""}, // it has ended, or may not be inspected
	} {
		if got := strings.Join(g.missingFrom(tt.pid, tt.uuids), " "); got != tt.want {
			t.Errorf("%d, %v: got %q missing, want %q", tt.pid, tt.uuids, got, tt.want)
		}
	}
}

func TestAgentUser(t *testing.T) {
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	for _, tt := range []struct {
		options      []string
		user, userns string
	}{
		{nil, own, ""},
		{[]string{"name=seccomp,profile=default"}, own, ""},
		{[]string{"name=seccomp,profile=default", "name=rootless"}, "0:0", ""},
		{[]string{"name=userns"}, own, "host"},
		{[]string{"name=seccomp,profile=rootless"}, own, ""},
	} {
		if u := agentUser(&system.Info{SecurityOptions: tt.options}); u.User != tt.user ||
			string(u.Userns) != tt.userns {
			t.Errorf("%v: got %+v, want %s and %q", tt.options, u, tt.user, tt.userns)
		}
	}
}

// TestDeviceRequestReachesTheHook uses Docker 20.10, which has a driver nvidia if
// nvidia-container-runtime-hook is in its PATH: the test's own hook records what it is asked for.
func TestDeviceRequestReachesTheHook(t *testing.T) {
	shared := engineOf(t) // or skip
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	writeFile(t, filepath.Join(bin, "nvidia-container-runtime-hook"), hookScript(dir+"/asked"))
	if err := os.Chmod(filepath.Join(bin, "nvidia-container-runtime-hook"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	e, err := dial(dockertest.New(t).Host())
	if err != nil {
		t.Fatal(err)
	}
	if err := startWithGPUs(t, e, gpuA, gpuB); err != nil {
		t.Fatalf("got %v, want a container that starts", err)
	}
	asked, err := os.ReadFile(dir + "/asked")
	if want := "NVIDIA_VISIBLE_DEVICES=" + gpuA + "," + gpuB + "\n"; err != nil || string(asked) != want {
		t.Errorf("got %q and %v from the hook, want %q", asked, err, want)
	}
	if err := startWithGPUs(t, shared, gpuA); err == nil || imageErrorClass(err) != grid.ClassEngine ||
		!strings.Contains(err.Error(), "could not select device driver") {
		t.Errorf("got %v from an engine without the hook, want class engine", err)
	}
	if info, err := shared.Info(context.Background()); err != nil || len(info.CDISpecDirs) == 0 {
		t.Logf("this engine (%s) takes no CDI devices, which start with Docker 25 and Podman 5.4: not tried",
			info.ServerVersion)
	}
}

// hookScript returns a hook that records the GPUs that its container was given, reading them as the
// real hook does.
func hookScript(file string) string {
	return `#!/bin/sh
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
grep -o 'NVIDIA_VISIBLE_DEVICES=[^"]*' "$bundle/config.json" >` + file + "\n"
}

// startWithGPUs starts a container with these GPUs, and removes it.
func startWithGPUs(t *testing.T, e *testEngine, uuids ...string) error {
	t.Helper()
	ctx := context.Background()
	importBusybox(t, e, "busy:1")
	info, err := e.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, h := &container.Config{Image: "busy:1", Cmd: []string{"/bin/true"}}, &container.HostConfig{NetworkMode: "none"}
	if err := newGPUAccess(&info, "").attach(GPUsAuto, uuids, c, h); err != nil {
		return err
	}
	made, err := e.ContainerCreate(ctx, c, h, nil, nil, "")
	if err != nil {
		return err
	}
	defer e.ContainerRemove(ctx, made.ID, container.RemoveOptions{Force: true})
	return e.ContainerStart(ctx, made.ID, container.StartOptions{})
}

// importBusybox makes an image of busybox with its shell, under this name.
func importBusybox(t *testing.T, e *testEngine, ref string) {
	t.Helper()
	root := t.TempDir()
	script := `mkdir -p bin tmp etc && cp /bin/busybox bin/ && chmod 1777 tmp && for p in sh true sleep cat id env ls; do ln -s busybox bin/$p; done && tar -cf ../root.tar .`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = filepath.Join(root, "root")
	if err := os.Mkdir(cmd.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	importTar(t, e, filepath.Join(root, "root.tar"), ref)
}

func importTar(t *testing.T, e *testEngine, file, ref string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	report, err := e.ImageImport(context.Background(), image.ImportSource{Source: f, SourceName: "-"}, ref,
		image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, report); err != nil {
		t.Fatal(err)
	}
}
