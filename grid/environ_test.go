package grid

import (
	"slices"
	"strings"
	"testing"
)

func TestMergeEnviron(t *testing.T) {
	for _, c := range []struct{ lists, want string }{
		{"", ""},
		{"A=1 B=2", "A=1 B=2"},
		{"A=1 B=2 A=3", "A=3 B=2"},
		{"A=1 B=2|A=3|B=", "A=3 B="},
		{"A=1|A=2|A", "A"},
		{"A==|A=x=y AB=1", "A=x=y AB=1"},
	} {
		var lists [][]string
		for list := range strings.SplitSeq(c.lists, "|") {
			lists = append(lists, strings.Fields(list))
		}
		before := strings.Join(lists[0], " ")
		got := strings.Join(MergeEnviron(lists...), " ")
		if got != c.want {
			t.Errorf("merge %q: got %q, want %q", c.lists, got, c.want)
		}
		if after := strings.Join(lists[0], " "); after != before {
			t.Errorf("merge %q changed its argument: got %q, want %q", c.lists, after, before)
		}
	}
}

// TestContainerEnvironment checks that a container gets only those variables of the shell that an
// image cannot know, that variables of the image override them, and that a task can request more by
// name.
func TestContainerEnvironment(t *testing.T) {
	shell := []string{"PATH=/home/bin", "LD_LIBRARY_PATH=/x", "LANG=de_DE.UTF-8", "LC_ALL=C", "TZ=Europe/Berlin",
		"HTTPS_PROXY=p", "no_proxy=n", "KEY=secret", "HOME=/home/ann", "LANGUAGE=de", "MLF_CLUSTER_TOKEN=t"}
	image := []string{"PATH=/image/bin", "LANG=C.UTF-8", "HOME=/root", "OF_IMAGE=1"}
	s := &Sweep{Environ: shell, EnvironAdded: []string{"ADDED=1"},
		Task: Task{Env: map[string]string{"API_KEY": "$KEY", "PATH": "/t:$PATH",
			"OF_IMAGE": "${OF_IMAGE}2", "STOLEN": "$MLF_CLUSTER_TOKEN"}}}
	got := s.ContainerEnvironment(nil, image, []string{"HOME=/cache/home", "TMPDIR=/tmp"},
		func(name string) bool { return !strings.HasPrefix(name, "MLF_") })
	want := []string{"PATH=/t:/image/bin", "LANG=C.UTF-8", "LC_ALL=C", "TZ=Europe/Berlin", "HTTPS_PROXY=p",
		"no_proxy=n", "HOME=/cache/home", "OF_IMAGE=12", "TMPDIR=/tmp", "API_KEY=secret", "ADDED=1", "STOLEN="}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSweepEnvironment checks the order of precedence: the shell or else the node, then the task,
// then the user's additions.
func TestSweepEnvironment(t *testing.T) {
	node := []string{"PATH=/usr/bin", "HOME=/root", "THREADS=8", "MLF_NODE=w1"}
	shell := []string{"PATH=/home/bin", "THREADS=4", "MLF_STATE=/s"}
	keep := func(name string) bool { return !strings.HasPrefix(name, "MLF_") }
	for _, c := range []struct {
		name                string
		shell, added, wants []string
		task                map[string]string
	}{
		{"of the node", nil, nil, []string{"PATH=/usr/bin", "HOME=/root", "THREADS=8"}, nil},
		{"added to the node's", nil, []string{"X=1"}, []string{"PATH=/usr/bin", "HOME=/root", "THREADS=8", "X=1"}, nil},
		{"of the shell", shell, nil, []string{"PATH=/home/bin", "THREADS=4"}, nil},
		{"added to the shell's", shell, []string{"THREADS=2", "X="},
			[]string{"PATH=/home/bin", "THREADS=2", "X="}, nil},
		{"of the task", shell, nil, []string{"PATH=/conda:/home/bin", "THREADS=1"},
			map[string]string{"PATH": "/conda:$PATH", "THREADS": "1"}},
		{"all three", nil, []string{"THREADS=2", "D=/d"},
			[]string{"PATH=/conda:/usr/bin", "HOME=/root", "THREADS=2", "D=/d", "T=/d/t"},
			map[string]string{"PATH": "/conda:${PATH}", "THREADS": "1", "T": "$D/t"}},
	} {
		s := &Sweep{Environ: c.shell, EnvironAdded: c.added, Task: Task{Env: c.task}}
		got := s.Environment(node, keep)
		slices.Sort(got)
		slices.Sort(c.wants)
		if !slices.Equal(got, c.wants) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.wants)
		}
	}
}

// TestReferences checks that dollar signs in a task's env that do not refer to a variable are kept.
func TestReferences(t *testing.T) {
	known := map[string]string{"A": "a", "A_1": "b$A", "_": "c"}
	for text, want := range map[string]string{
		"": "", "plain": "plain", "$A": "a", "${A}": "a", "$A_1/${A}b": "b$A/ab",
		"$_": "c", "$NONE": "", "x${NONE}y": "xy", "$AB": "",
		"$": "$", "a$": "a$", "^a$|b$": "^a$|b$", "$5.00": "$5.00",
		"pa$$word": "pa$word", "$$A": "$A", "$$$A": "$a", "$${A:-x}": "${A:-x}",
		"$(id)": "$(id)", "$?$*$@$#$-$!": "$?$*$@$#$-$!", "$ A": "$ A", "$ü": "$ü", "a}{$A}": "a}{a}",
	} {
		if got := expandVariables(text, known); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if err := CheckEnvValue("V", text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"${A:-x}", "x${", "${}", "${1}", "${A", "$$${A:-x}", "${A}${B-}",
		"${ü}", "${A }", "a\x00"} {
		if err := CheckEnvValue("V", text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
