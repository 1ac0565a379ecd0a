package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
)

// fakes is a cluster of machines that answer as told: a for the master, b and c for workers.
type fakes struct {
	mu      sync.Mutex
	sweeps  string          // of the master
	members string          //
	down    map[string]bool // its node does not answer
	roles   map[string]grid.NodeRole
	asked   []string // "a stop", …
	ran     []string // other commands

	digest   string            // of the program that they have
	config   string            // their node.yaml
	clusters map[string]string // digest of the authority
	unjoined map[string]bool
	moved    map[string]bool
	lost     map[string]bool // can't be reached
}

func (f *fakes) machine(name string) shell.Machine {
	return fakeMachine(func(program, stdin string) (string, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		seen := &protocol.Observed{Role: f.roles[name], Active: !f.down[name], Working: !f.down[name],
			Joined: !f.unjoined[name] && !f.moved[name], Moved: f.moved[name], Service: protocol.ServiceBackground,
			Node: name, Cluster: f.clusters[name], Config: f.config}
		if f.down[name] {
			seen.Service = ""
		}
		r := protocol.Response{Observed: seen}
		for _, action := range []string{protocol.ActionInspect, protocol.ActionStart, protocol.ActionStop,
			protocol.ActionReach} {
			if strings.Contains(program, "provision "+action) {
				f.asked = append(f.asked, name+" "+action)
				switch action {
				case protocol.ActionStart:
					seen.Joined, seen.Active, seen.Working = true, true, true
				case protocol.ActionStop:
					r.Done = []string{"stopped"}
					if strings.Contains(stdin, `"purge":true`) {
						r.Done = append(r.Done, "removed")
					}
				}
				return replyText(nil, &r), nil
			}
		}
		switch {
		case strings.Contains(program, "say os"):
			return answer("home=/home/"+name, "boot="+name, "disk="+name,
				"digest="+cmp.Or(f.digest, strings.Repeat("ab", 32)),
				fmt.Sprintf("time=%d", time.Now().Unix())), nil
		case strings.Contains(program, "'sweeps'"):
			return f.sweeps, nil
		case strings.Contains(program, "'members'"):
			return f.members, nil
		}
		_, command, _ := strings.Cut(program, "/node.yaml' ")
		f.ran = append(f.ran, name+" "+command)
		if strings.Contains(command, "'token'") {
			return `{"token":"mlf1.x"}`, nil
		}
		return "", nil
	})
}

func (f *fakes) options() Options {
	self, _ := os.Executable()
	return Options{
		Cluster: &Cluster{Hosts: []Host{{Address: "a", Roles: []grid.NodeRole{grid.Master}},
			{Address: "b", Roles: []grid.NodeRole{grid.Worker}},
			{Address: "c", Roles: []grid.NodeRole{grid.Worker}}}},
		Builds: NewBuilds(self), LocalName: "laptop", OnEvent: func(Event) {},
		Dial: func(_ context.Context, address string) (shell.Machine, string, error) {
			if f.lost[address] {
				return nil, "", errNoRoute
			}
			return f.machine(address), address, nil
		},
	}
}

// did lists what was done on the machines.
func (f *fakes) did(action string) []string {
	var names []string
	for _, a := range f.asked {
		if name, did, _ := strings.Cut(a, " "); did == action {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

const fakeMembers = `[{"node":"a","state":"alive","address":"10.0.0.1:7422"},{"node":"b","state":"alive","address":"10.0.0.2:7422","running":3},` +
	`{"node":"c","state":"alive","address":"10.0.0.3:7422","running":1}]`

func newFakes() *fakes {
	return &fakes{sweeps: "[]", members: fakeMembers, down: map[string]bool{},
		roles: map[string]grid.NodeRole{"a": "master", "b": "worker", "c": "worker"}}
}

// TestDownSaysOfWhichCluster tells which cluster a machine belonged to, whose program may answer or
// not.
func TestDownSaysOfWhichCluster(t *testing.T) {
	f := newFakes()
	digest := func(of string) string { return strings.Repeat(of, 32) }
	f.clusters, f.down["b"], f.lost = map[string]string{"a": digest("1a"), "b": digest("2b"), "c": digest("3c")}, true,
		map[string]bool{"c": true}
	all, err := Down(t.Context(), f.options(), DownOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{digest("1a"), digest("2b"), ""} {
		if got := all[i].Authority; got != want {
			t.Errorf("%s: got the authority %q, want %q", all[i].Host, got, want)
		}
	}
}

func TestPurgeAsksBeforeResultsGo(t *testing.T) {
	tests := []struct {
		name   string
		sweeps string
		down   bool
		order  DownOptions
		refuse bool
		asked  string // what Agree is asked, "" for nothing
		stops  []string
	}{
		{"nothing to lose", "[]", false, DownOptions{Purge: true}, true, "", []string{"a", "b", "c"}},
		{"results", `[{"running":4},{"running":0}]`, false, DownOptions{Purge: true}, true,
			"a: 2 sweeps with all results, and 4 trials are running", nil},
		{"agreed", `[{"running":0}]`, false, DownOptions{Purge: true}, false, "a: 1 sweep with all results",
			[]string{"a", "b", "c"}},
		{"agreed before", `[{"running":4}]`, false, DownOptions{Purge: true, Yes: true}, true,
			"", []string{"a", "b", "c"}},
		{"nobody knows", `[]`, true, DownOptions{Purge: true}, true, "a: the results of its cluster", nil},
		{"files stay", `[{"running":4}]`, false, DownOptions{}, true, "", []string{"a", "b", "c"}},
		{"one worker", `[{"running":4}]`, false, DownOptions{Hosts: []string{"b"}, Purge: true},
			true, "", []string{"b"}},
		{"the master alone", `[{"running":4}]`, false, DownOptions{Hosts: []string{"a"}, Purge: true}, true,
			"a: 1 sweep with all results, and 4 trials are running", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakes()
			f.sweeps, f.down["a"] = tt.sweeps, tt.down
			o, asked := f.options(), ""
			o.ConfirmLosses = func(_ context.Context, losses []string) error {
				if asked = strings.Join(losses, "\n"); tt.refuse {
					return errors.New("no")
				}
				return nil
			}
			_, err := Down(t.Context(), o, tt.order)
			if asked != tt.asked || (err != nil) != (tt.asked != "" && tt.refuse) {
				t.Errorf("asked %q (error %v), want %q", asked, err, tt.asked)
			}
			if got := f.did(protocol.ActionStop); !slices.Equal(got, tt.stops) {
				t.Errorf("stopped %q, want %q", got, tt.stops)
			}
		})
	}
}

// TestDownSaysWhatRuns has trials running on two of three machines.
func TestDownSaysWhatRuns(t *testing.T) {
	f := newFakes()
	all, err := Down(t.Context(), f.options(), DownOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "3 trials were running, which begin again when there is a node for them",
		"1 trial was running, which begins again when there is a node for it"}
	for i, o := range all {
		if got := strings.Join(o.Notes, "\n"); got != want[i] || !o.OK {
			t.Errorf("%s: noted %q, want %q (%v)", o.Host, got, want[i], o.Problem)
		}
	}
	f = newFakes()
	if all, err = Down(t.Context(), f.options(), DownOptions{Hosts: []string{"c"}}); err != nil || len(all) != 1 ||
		all[0].Host != "c" {
		t.Errorf("got %+v, %v, want c alone", all, err)
	}
	if _, err = Down(t.Context(), f.options(), DownOptions{Hosts: []string{"nosuch"}}); err == nil ||
		!strings.Contains(err.Error(), `there is no host "nosuch"`) {
		t.Errorf("got %v", err)
	}
}
