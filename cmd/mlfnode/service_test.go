package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"mlfnode/node/service"
	"mlfnode/node/service/servicetest"
)

// TestServiceWithoutSystemd wants a machine without systemd to be told what to do instead.
func TestServiceWithoutSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("left out: this machine runs systemd, and would get a service")
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	var out, complaint bytes.Buffer
	code := run(context.Background(), &interrupts{},
		[]string{"service", "install", "--user", "--seed", "hostA"}, &out, &complaint)
	if code != exitFailed ||
		!strings.HasPrefix(complaint.String(), "mlfnode: this host is not run by systemd\n  try: start it by hand") ||
		!strings.Contains(complaint.String(),
			"setsid nohup mlfnode join --seed hostA >>mlfnode.log 2>&1 </dev/null &\n") {
		t.Errorf("got exit code %d and\n%s", code, complaint.String())
	}
	if left, _ := os.ReadDir(home); out.Len() > 0 || len(left) > 0 {
		t.Errorf("got output %q and files %v, want neither", out.String(), left)
	}
}

// TestServiceAsAUserOfRelativePaths has root name files by their place in the current folder: the
// user's command has another one.
func TestServiceAsAUserOfRelativePaths(t *testing.T) {
	a := newTestApp(io.Discard, io.Discard)
	here := t.TempDir()
	t.Chdir(here)
	var got []string
	root := rootCommand(a)
	install, _, err := root.Find([]string{"service", "install"})
	if err != nil {
		t.Fatal(err)
	}
	install.RunE = func(c *cobra.Command, _ []string) error {
		got, err = userArgs(c)
		return err
	}
	root.SetArgs([]string{"service", "install", "--run-as", "ada", "--config", "node.yaml", "--state-dir",
		"../state", "--no-start"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{"--config=" + filepath.Join(here, "node.yaml"), "--no-start=true",
		"--state-dir=" + filepath.Join(filepath.Dir(here), "state"), "--user", "install", "service"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestServiceCommands runs the whole program on a machine with systemd.
func TestServiceCommands(t *testing.T) {
	m := servicetest.Boot(t)
	bin := filepath.Join(t.TempDir(), "mlfnode")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build mlfnode: %v\n%s", err, out)
	}
	m.Copy(bin, "/opt/mlf/mlfnode")
	m.Run("ln -s /opt/mlf/mlfnode /usr/bin/mlfnode")

	if got := m.Run(
		"mlfnode service status"); got != "no service is installed; install one with: mlfnode service install" {
		t.Errorf("before: got %q", got)
	}
	want := "unit      /etc/systemd/system/mlfnode.service\nprogram   /opt/mlf/mlfnode\nsettings  /etc/mlfnode/node.yaml\nstate     /var/lib/mlfnode"
	if got := m.Run("mlfnode service install --role master --no-start"); got != want {
		t.Errorf("install: got\n%s\nwant\n%s", got, want)
	}
	if got := m.Run("mlfnode service status"); !strings.Contains(got, "mlfnode.service (enabled)\n") ||
		!strings.Contains(got, "state     inactive (dead)") {
		t.Errorf("status: got\n%s", got)
	}
	var s service.State
	if err := json.Unmarshal([]byte(m.Run("mlfnode service status --json")), &s); err != nil ||
		s.Program != "/opt/mlf/mlfnode master --config /etc/mlfnode/node.yaml" {
		t.Errorf("status --json: got %+v, %v", s, err)
	}
	if got, err := m.Try("mlfnode doctor"); err == nil ||
		!strings.Contains(got, "the service is installed and not active") {
		t.Errorf("doctor: got %v\n%s", err, got)
	}
	if got, err := m.Try("setpriv --reuid nobody --clear-groups mlfnode service uninstall"); err == nil ||
		!strings.Contains(got, "try: the same command with sudo") {
		t.Errorf("without rights: got %v, %s", err, got)
	}
	want = "removed /etc/systemd/system/mlfnode.service\nremoved /etc/mlfnode/node.yaml\nremoved /etc/mlfnode\nremoved /var/lib/mlfnode"
	if got := m.Run("mlfnode service uninstall"); got != want {
		t.Errorf("uninstall: got\n%s\nwant\n%s", got, want)
	}
	if got := m.Run("mlfnode service uninstall"); got != "no service is installed" {
		t.Errorf("uninstall again: got %q", got)
	}
}
