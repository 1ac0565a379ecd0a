package shim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor/process"
)

// standIn is a controller that is in the v2 hierarchy on machines whose memory controller is in a
// v1 hierarchy.
const standIn = "hugetlb"

// scope is a v2 cgroup like the systemd scope of a shim.
type scope struct {
	t   *testing.T
	dir string
}

// newScope creates a cgroup with a controller that it may enable for its children.
func newScope(t *testing.T) *scope {
	t.Helper()
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil &&
			strings.Contains(string(b), standIn) {
			root = dir
		}
	}
	control := filepath.Join(root, "cgroup.subtree_control")
	before, _ := os.ReadFile(control)
	if root == "" || os.WriteFile(control, []byte("+"+standIn), 0) != nil {
		t.Skip("the v2 hierarchy of this machine has no controller to try this with")
	}
	if !strings.Contains(string(before), standIn) {
		t.Cleanup(func() { _ = os.WriteFile(control, []byte("-"+standIn), 0) })
	}
	s := &scope{t, filepath.Join(root, fmt.Sprintf("mlftest-scope-%d", os.Getpid()))}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(t, "the scope to be removed", func() bool { return os.Remove(s.dir) == nil }) })
	return s
}

// options are those of a shim that lives in the scope.
func (s *scope) options() Options {
	o := options(s.t)
	o.Cgroups = process.CgroupsV2 + ":" + standIn
	o.Wrap = func() []string {
		return []string{"/bin/sh", "-c", "echo $$ >" + s.dir + `/cgroup.procs; exec "$@"`, "sh"}
	}
	return o
}

func (s *scope) read(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// empty looks whether the scope is as it was.
func (s *scope) empty() {
	s.t.Helper()
	left, _ := filepath.Glob(s.dir + "/mlfnode*")
	if len(left) > 0 || s.read("cgroup.procs") != "" {
		s.t.Errorf("the scope: got folders %q, processes %q; want none", left, s.read("cgroup.procs"))
	}
}

// works runs an attempt and says where it and its shim were.
func (s *scope) works(c *Client) (program, self string) {
	s.t.Helper()
	dir, slot := s.t.TempDir(), slotOf(s.t, c)
	defer slot.Close()
	expect(s.t, slot.Run(s.t.Context(), script(s.t, dir, "a", "cat /proc/self/cgroup; exit 3")), grid.ClassExit, 3, "")
	shim, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.current.shim.PID))
	out, oerr := os.ReadFile(filepath.Join(dir, "stdout"))
	if err != nil || oerr != nil {
		s.t.Fatal(err, oerr)
	}
	return unified(string(out)), unified(string(shim))
}

// unified is the v2 cgroup of a process.
func unified(cgroups string) string {
	_, path, _ := strings.Cut(cgroups, "0::")
	return strings.TrimSpace(path)
}

// TestShimDividesItsCgroup runs a shim that divides the scope in which it lives alone.
func TestShimDividesItsCgroup(t *testing.T) {
	s := newScope(t)
	o := s.options()
	c := open(t, o)
	stay := slotOf(t, c)
	program, self := s.works(c)
	name := "mlfnode-" + o.Token + "-1"
	if want := "/" + name + ".self"; !strings.HasSuffix(self, want) {
		t.Errorf("shim: got cgroup %q, want …%s", self, want)
	}
	if want := "/" + name + "/slot-2"; !strings.HasSuffix(program, want) {
		t.Errorf("program: got cgroup %q, want …%s", program, want)
	}
	if got := s.read(name + "/cgroup.subtree_control"); got != standIn || s.read("cgroup.procs") != "" {
		t.Errorf("got %q passed on and processes %q, want %s and none", got, s.read("cgroup.procs"), standIn)
	}
	if got := s.read(name + "/slot-1/cgroup.controllers"); got != standIn {
		t.Errorf("slot: got controllers %q, want %s", got, standIn)
	}
	if err := stay.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDelegationIsUndone ends one shim in good order, and kills another.
func TestDelegationIsUndone(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			s := newScope(t)
			o := s.options()
			c := open(t, o)
			s.works(c)
			if killed {
				c.current.shim.kill()
				<-c.current.cleared
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			s.empty()
			if got := s.read("cgroup.subtree_control"); !killed && got != "" {
				t.Errorf("got %q passed on, want nothing", got)
			}
			nothingLeft(t, o)
		})
	}
}

// TestNoDelegationAmongOthers runs a shim that shares its scope, as with the shell of a terminal.
func TestNoDelegationAmongOthers(t *testing.T) {
	s := newScope(t)
	other := exec.Command("/bin/sh", "-c", "echo $$ >"+s.dir+"/cgroup.procs; exec sleep 1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	eventually(t, "the other to be there", func() bool { return s.read("cgroup.procs") != "" })
	o := s.options()
	c := open(t, o)
	program, self := s.works(c)
	if want := "/" + filepath.Base(s.dir); self != want || !strings.HasSuffix(program, "/slot-1") {
		t.Errorf("got shim in %q, program in %q; want %s and a slot", self, program, want)
	}
	if c.Limits() || !strings.Contains(c.TreeTracking(), "not enforced") {
		t.Errorf("got limits %v, %q; want none", c.Limits(), c.TreeTracking())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDelegationUnderSystemd lets systemd create the scopes. TestShimDividesItsScope of package
// node runs it on a machine with systemd, whose slices it gives the controller.
func TestDelegationUnderSystemd(t *testing.T) {
	if os.Getenv("SHIM_TEST_SYSTEMD") == "" {
		t.Skip("not on a machine that was made for this")
	}
	for _, c := range []struct {
		delegate, self, slot string
	}{
		{"yes", ".self", standIn},
		{"no", ".scope", ""}, // it is systemd's to divide
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("delegate=%s/killed=%v", c.delegate, killed), func(t *testing.T) {
				o := options(t)
				unit := o.Token + ".scope"
				s := &scope{t, "/sys/fs/cgroup/system.slice/" + unit}
				o.Cgroups = process.CgroupsV2 + ":" + standIn
				o.Wrap = func() []string {
					return []string{"systemd-run", "--scope", "--quiet", "--collect", "--unit=" + unit, "-p",
						"Delegate=" + c.delegate, "--"}
				}
				client := open(t, o)
				stay := slotOf(t, client)
				program, self := s.works(client)
				if !strings.HasSuffix(self, c.self) || !strings.Contains(self, "/system.slice/"+unit) ||
					!strings.Contains(program, "/system.slice/"+unit+"/mlfnode-") {
					t.Errorf("got shim in %q, program in %q; want …%s and a slot of the scope", self, program, c.self)
				}
				if got := s.read("mlfnode-" + o.Token + "-1/slot-1/cgroup.controllers"); got != c.slot {
					t.Errorf("slot: got controllers %q, want %q", got, c.slot)
				}
				if killed {
					client.current.shim.kill()
					<-client.current.cleared
				}
				if err := stay.Close(); err != nil {
					t.Error(err)
				}
				if err := client.Close(); err != nil {
					t.Error(err)
				}
				eventually(t, "systemd to remove the scope", func() bool { return !exists(s.dir) })
				nothingLeft(t, o)
			})
		}
	}
}
