package bootstrap

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"

	"github.com/google/go-cmp/cmp"
)

// letters makes flags from words like -a=hostA,hostB.
func letters(words ...string) *Flags {
	l := &Flags{}
	for _, w := range words {
		flag, value, _ := strings.Cut(w, "=")
		to := map[string]**string{"-a": &l.Hosts, "-i": &l.Key, "-r": &l.Root, "-d": &l.Project, "-m": &l.Master,
			"-w": &l.Workers, "-b": &l.Attach}[flag]
		*to = &value
	}
	return l
}

// shape is a cluster as its hosts with their names and roles.
func shape(c *Cluster) []string {
	var all []string
	for _, h := range c.Hosts {
		text := h.Name + " " + h.Address
		for _, r := range h.Roles {
			text += " " + string(r)
		}
		all = append(all, text)
	}
	return all
}

const written = `
root: ML
project: chainer
hosts:
  - address: ada@hostA
    roles: [master]
  - address: hostB:2222
    name: gpu
    roles: [worker]
    settings: {cpus: 4}
`

func TestLetters(t *testing.T) {
	tests := []struct {
		name  string
		file  string
		flags []string
		want  []string
	}{
		{"the old example", "", []string{"-a=A,B,C", "-r=ML", "-d=chainer", "-m=1", "-w=2,3"},
			[]string{"A A master", "B B worker", "C C worker"}},
		{"this machine works, too", "", []string{"-a=user@hostA,user@hostB", "-m=1", "-w=local,1,2"},
			[]string{"hostA user@hostA master worker", "hostB user@hostB worker", "laptop local worker"}},
		{"this machine is the master", "", []string{"-a=hostA.lab.org", "-m=local", "-w=1"},
			[]string{"hostA hostA.lab.org worker", "laptop local master"}},
		{"addresses and equal names", "", []string{"-a=10.0.0.5,hostA,hostA:2222,[fe80::1]:22", "-m=1", "-w=2,3,4"},
			[]string{"10-0-0-5 10.0.0.5 master", "hostA hostA worker", "hostA-2 hostA:2222 worker",
				"fe80--1 [fe80::1]:22 worker"}},
		{"attached", "", []string{"-a=hostA", "-w=1", "-b=master:7420"}, []string{"hostA hostA worker"}},
		{"a host without a role", "", []string{"-a=hostA,hostB", "-m=1"},
			[]string{"hostA hostA master", "hostB hostB"}},
		{"the file alone", written, nil, []string{"hostA ada@hostA master", "gpu hostB:2222 worker"}},
		{"a flag over the file", written, []string{"-w=1,2"},
			[]string{"hostA ada@hostA master worker", "gpu hostB:2222 worker"}},
		{"another master than the file's", written, []string{"-m=2"},
			[]string{"hostA ada@hostA", "gpu hostB:2222 master worker"}},
		{"attached over the file", written, []string{"-b=master"},
			[]string{"hostA ada@hostA", "gpu hostB:2222 worker"}},
		{"hosts over the file keep what is said of them", written, []string{"-a=hostB:2222,hostC", "-m=2"},
			[]string{"gpu hostB:2222 worker", "hostC hostC master"}},
		{"this machine leaves", written, []string{"-w=local,2", "-m=1"},
			[]string{"hostA ada@hostA master", "gpu hostB:2222 worker", "laptop local worker"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, tt.file)
			if err := letters(tt.flags...).Apply(c); err != nil {
				t.Fatal(err)
			}
			if c.fillDefaults("laptop", nil); c.Validate() != nil {
				t.Fatal(c.Validate())
			}
			if diff := cmp.Diff(tt.want, shape(c)); diff != "" {
				t.Errorf("hosts (-want +got):\n%s", diff)
			}
			again := save(t, c)
			if diff := cmp.Diff(shape(c), shape(again)); diff != "" {
				t.Errorf("written and read again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBadClusters(t *testing.T) {
	tests := []struct {
		file  string
		flags []string
		want  string
	}{
		{"", nil, "there are no hosts; name some with -a, or this machine with -m local or -w local"},
		{"", []string{"-a=A,B"},
			"no host is the master; choose one with -m local or -m N, or attach to a running one with -b HOST"},
		{"", []string{"-a=A,B", "-m=3"}, "-m 3: there is no host with that number; -a has 2, and the first is 1"},
		{"", []string{"-a=A,B", "-m=0"}, "-m 0: there is no host with that number; -a has 2, and the first is 1"},
		{"", []string{"-a=A,B", "-m=A"}, "-m takes `local` or the number of a host in -a, not \"A\""},
		{"", []string{"-a=A,B", "-m=1", "-w=1,,2"}, "-w takes `local` or the number of a host in -a, not \"\""},
		{"", []string{"-a=A,,B", "-m=1"}, "-a A,,B: the list has an empty entry; write HOST,HOST"},
		{"", []string{"-a=local,B", "-m=1"}, "-a lists other machines; this one takes part with -m local or -w local"},
		{"", []string{"-a=A,A", "-m=1"}, "the host A is named twice"},
		{"", []string{"-a=A", "-m=1", "-b=master"},
			"there is a master among the hosts, and -b attaches to another one; choose one of them"},
		{"", []string{"-a=A", "-b=master"}, "no host runs anything; choose workers with -w"},
		{"", []string{"-a=A", "-m=1", "-r=/opt/ML"},
			"the folder \"/opt/ML\" is not a folder below the home folder; write one such as -r mlfnode"},
		{"", []string{"-a=A", "-m=1", "-r=../ML"},
			"the folder \"../ML\" is not a folder below the home folder; write one such as -r mlfnode"},
		{"", []string{"-a=A", "-m=1", "-r=."},
			"the folder \".\" is not a folder below the home folder; write one such as -r mlfnode"},
		{"", []string{"-a=user@", "-m=1"}, "\"user@\" names no machine; write [user@]host[:port]"},
		{"hosts:\n  - address: A\n    roles: [boss]\n", []string{"-b=x"},
			"host A: there is no role \"boss\"; write master or worker"},
		{"hosts:\n  - {address: A, name: x y, roles: [master]}\n", nil,
			"\"x y\" is not a valid node name; use letters, digits, - and _"},
		{"hosts:\n  - {address: A, name: x, roles: [master]}\n  - {address: B, name: x, roles: [worker]}\n", nil,
			"two hosts have the name \"x\""},
		{"hosts:\n  - {address: A, roles: [master]}\n  - {address: B, roles: [master]}\n", nil,
			"2 hosts are master; a cluster has one"},
		{"hosts:\n  - adress: A\n", nil,
			"FILE:2: there is no key adress; there are root, project, key, attach, settings and hosts, and for a host address, name, roles and settings"},
		{"hosts: 7\n", nil, "FILE:1: the value does not fit the key"},
		{"hosts: [\n", nil, "FILE:1: this is not valid YAML: did not find expected node content"},
		{"settings: {node: x}\nhosts:\n  - {address: A, roles: [master]}\n", nil,
			"line 1: node follows from the hosts and their roles and can't be set here"},
		{"settings: 7\nhosts:\n  - {address: A, roles: [master]}\n", nil,
			"line 1: settings are written as in node.yaml, a line `key: value` for each"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			if got := fault(t, tt.file, letters(tt.flags...)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// fault is what is said of a file and flags, by the first that complains.
func fault(t *testing.T, text string, l *Flags) string {
	t.Helper()
	file := write(t, text)
	c, err := Load(file)
	if err == nil {
		err = l.Apply(c)
	}
	if err == nil {
		c.fillDefaults("laptop", nil)
		err = c.Validate()
	}
	for i := 0; err == nil && i < len(c.Hosts); i++ {
		_, err = c.nodeConfig(&c.Hosts[i], protocol.Layout{Root: "/home/ada/ML"})
	}
	if err == nil {
		return "nothing"
	}
	return strings.ReplaceAll(err.Error(), file, "FILE")
}

func TestNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrNoFile) {
		t.Errorf("got %v, want ErrNoFile", err)
	}
}

func TestNodeConfig(t *testing.T) {
	c := load(t, "settings: {ports: {api: 17420, gossip: 17422}, patience: 20s}\nhosts:\n"+
		"  - {address: A, roles: [master], settings: {ports: {api: 27420}, cpus: 4}}\n  - {address: B, roles: [worker]}\n")
	c.fillDefaults("laptop", nil)
	p := protocol.Layout{Root: "/home/ada/ML"}
	want := []string{
		protocol.NodeHeading + "state: /home/ada/ML/state\nnode: A\nworker: false\nports: {api: 27420, gossip: 17422}\npatience: 20s\ncpus: 4\n",
		protocol.NodeHeading +
			"state: /home/ada/ML/state\nnode: B\nports: {api: 17420, gossip: 17422}\npatience: 20s\n",
	}
	for i := range c.Hosts {
		got, err := c.nodeConfig(&c.Hosts[i], p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("node.yaml of %s (-want +got):\n%s", c.Hosts[i].Name, diff)
		}
	}
	got, err := c.ports(&c.Hosts[0])
	if want := (ports{API: 27420, NATS: 7421, Gossip: 17422}); err != nil || got != want {
		t.Errorf("ports: got %v, %v, want %v", got, err, want)
	}
}

// FuzzLetters holds that flags of any kind give a valid cluster or an error, and that what is valid
// survives its file.
func FuzzLetters(f *testing.F) {
	f.Add("A,B,C", "1", "2,3", "ML")
	f.Add("user@[fe80::1]:22", "local", "local,1", "a/b")
	f.Fuzz(func(t *testing.T, hosts, master, workers, root string) {
		c := &Cluster{}
		l := &Flags{Hosts: &hosts, Master: &master, Workers: &workers, Root: &root}
		if l.Apply(c) != nil {
			return
		}
		if c.fillDefaults("laptop", nil); c.Validate() != nil {
			return
		}
		if diff := cmp.Diff(shape(c), shape(save(t, c))); diff != "" {
			t.Errorf("written and read again (-want +got):\n%s", diff)
		}
	})
}

func load(t *testing.T, text string) *Cluster {
	t.Helper()
	c, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), DefaultFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func save(t *testing.T, c *Cluster) *Cluster {
	t.Helper()
	file := filepath.Join(t.TempDir(), DefaultFile)
	if err := Save(file, c); err != nil {
		t.Fatal(err)
	}
	again, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return again
}
