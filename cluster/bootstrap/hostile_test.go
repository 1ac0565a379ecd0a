package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/bootstrap/shell"
	"mlfnode/grid"
	"mlfnode/grid/printable"
)

// hostile are texts that a machine in the wrong hands may answer with. PROOF stands for a file that
// none of them may make.
var hostile = []string{
	"$(touch PROOF)", "`touch PROOF`", "x; touch PROOF", "x\ntouch PROOF", "x' ; touch PROOF; '", `x"; touch PROOF; "`,
	"x && touch PROOF", "| touch PROOF",
	"-x", "--state-dir=/tmp", "../../etc", "a/b", "\x00", "a\x00b", "\x1b]52;c;cm0gLXJmIH4=\a",
	"\x1b[2J\x1b[H", "\u009b2J", "ok\rFAILED", "\u202egnp.exe",
	"\xff\xfe", strings.Repeat("A", 1<<20), strings.Repeat("\n", 1<<16), strings.Repeat("\x1b[", 1<<16),
}

// fakeMachine answers as a machine of the cluster does.
type fakeMachine func(program, stdin string) (string, error)

func (f fakeMachine) Run(_ context.Context, program string, stdin io.Reader, stdout io.Writer) error {
	in := []byte{}
	if stdin != nil {
		in, _ = io.ReadAll(stdin)
	}
	out, err := f(program, string(in))
	if stdout != nil {
		io.WriteString(stdout, out)
	}
	return err
}

func (fakeMachine) Close() error { return nil }

// words are the texts of a value, with the way to each.
func words(v reflect.Value, at string, each func(at string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			words(v.Elem(), at, each)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				words(v.Field(i), at+"."+v.Type().Field(i).Name, each)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			words(v.Index(i), at, each)
		}
	case reflect.String:
		each(at, v)
	}
}

// wholeReply has something in each place for text.
func wholeReply() *protocol.Response {
	p := shell.Problem{Cause: "cause", Cure: "cure"}
	return &protocol.Response{
		Problem: &p, Notes: []string{"note"}, Done: []string{"started"},
		Missing: []string{"a/b.py"}, FormerName: "gpu1",
		Observed: &protocol.Observed{Digest: strings.Repeat("0a", 32), Release: "1.0", Config: "cpus: 4\n",
			Node: "gpu1", Role: "worker", Service: protocol.ServiceUser,
			BestService: protocol.ServiceUser, Running: "1.0", Leftovers: []string{"process 5"},
			Problems: []shell.Problem{p}},
	}
}

func replyText(t testing.TB, r *protocol.Response) string {
	b, err := json.Marshal(r)
	if err != nil { // it is made of texts and numbers
		t.Fatal(err)
	}
	return "Welcome to gpu1!\n" + string(b) + "\n"
}

// checkSafe fails for a reply with words that must not be shown or used.
func checkSafe(t *testing.T, r *protocol.Response) {
	words(reflect.ValueOf(r), "reply", func(at string, v reflect.Value) {
		text := v.String()
		switch at {
		case "reply.Observed.Config": // nobody shows or uses it
			return
		case "reply.Problem.Cause", "reply.Observed.Problems.Cause":
			text = strings.ReplaceAll(text, "\n", "")
		case "reply.FormerName", "reply.Observed.Node":
			if err := checkName(text); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
		if !printable.Plain(text) || len(text) > maxCause && at != "reply.Missing" {
			t.Errorf("%s is not safe to show: %d bytes, %.60q", at, len(text), text)
		}
	})
}

func TestRepliesAreCheckedWhereTheyEnter(t *testing.T) {
	if r, err := readResponse(replyText(t, wholeReply())); err != nil {
		t.Fatal(err)
	} else {
		checkSafe(t, r)
	}
	var places []string
	words(reflect.ValueOf(wholeReply()), "reply", func(at string, _ reflect.Value) { places = append(places, at) })
	for _, place := range places {
		for _, text := range hostile {
			bad := wholeReply()
			words(reflect.ValueOf(bad), "reply", func(at string, v reflect.Value) {
				if at == place {
					v.SetString(text)
				}
			})
			r, err := readResponse(replyText(t, bad))
			if err != nil {
				p := ProblemOf(err)
				r = &protocol.Response{Problem: p}
			}
			checkSafe(t, r)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(replyText(f, wholeReply()))
	for _, text := range hostile {
		f.Add(text)
		f.Add(replyText(f, &protocol.Response{FormerName: text, Notes: []string{text}}))
	}
	f.Fuzz(func(t *testing.T, out string) {
		r, err := readResponse(out)
		if err != nil {
			r = &protocol.Response{Problem: ProblemOf(err)}
		}
		checkSafe(t, r)
	})
}

func TestFactsAreCheckedWhereTheyEnter(t *testing.T) {
	for _, key := range []string{"os", "arch", "user", "host", "home", "glibc", "ssh", "docker", "there", "disk",
		"boot", "digest", "refused"} {
		for _, text := range hostile {
			if key == "home" {
				text = "/" + text
			}
			f := parseFacts(answer(key+"="+text), noon)
			if f == nil {
				continue
			}
			f.Boot, f.Disk = "", "" // compared with others, and never shown
			words(reflect.ValueOf(f), "facts", func(at string, v reflect.Value) {
				if !printable.Plain(v.String()) || len(v.String()) > maxHome {
					t.Errorf("%s=%.60q: %s is %.60q", key, text, at, v.String())
				}
			})
			if checkDigest(f.Digest) != nil {
				t.Errorf("%s is taken for a digest", f.Digest)
			}
		}
	}
}

func TestMembersAreCheckedWhereTheyEnter(t *testing.T) {
	for _, text := range hostile {
		if err := checkMembers([]member{{Node: text, State: "alive", Address: "10.0.0.1:7422"}}); err == nil &&
			text != "-x" {
			t.Errorf("%.60q is taken for a name", text)
		}
		if err := checkMembers([]member{{Node: "a", State: "alive", Address: text}}); err == nil {
			t.Errorf("%.60q is taken for an address", text)
		}
	}
	if err := checkMembers([]member{{Node: "a", State: "alive", Address: "[fe80::1%eth0]:7422"},
		{Node: "b", State: "dead"}}); err != nil {
		t.Error(err)
	}
}

// TestCommandsAreQuoted has real words go through a real shell to a program that prints what it
// got.
func TestCommandsAreQuoted(t *testing.T) {
	dir := t.TempDir()
	proof := filepath.Join(dir, "proof")
	m := &machine{Host: &Host{Name: "a"}, shell: shell.Local{},
		facts: &Facts{Layout: protocol.Layout{Root: filepath.Join(dir, "my m'l $(x) ü")}}}
	if err := os.MkdirAll(filepath.Dir(m.facts.Layout.Program()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.facts.Layout.Program(), []byte("#!/bin/sh\nprintf '%s\\0' \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range hostile {
		text = strings.ReplaceAll(text, "PROOF", proof)
		if strings.Contains(text, "\x00") || len(text) > 100_000 {
			continue // no word of a command line
		}
		got, err := m.runCommand(t.Context(), "forget", "--", text)
		want := []string{"--state-dir", m.facts.Layout.State(), "--config", m.facts.Layout.Config(),
			"forget", "--", text, ""}
		if err != nil || !slices.Equal(strings.Split(got, "\x00"), want) {
			t.Errorf("%.60q arrives as %.300q, %v", text, got, err)
		}
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("a word was run as a program")
	}
}

func TestEndlessAnswersAreGivenUp(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	_, err := shell.Output(ctx, shell.Local{}, "exec yes", nil)
	if err == nil || !strings.Contains(err.Error(), "does not stop printing") {
		t.Errorf("got %v", err)
	}
}

// TestWorkerRunsNothingElsewhere has a worker answer with hostile texts, and looks at what the
// master's shell is given.
func TestWorkerRunsNothingElsewhere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBuilds(self).open(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range hostile {
		proof := filepath.Join(t.TempDir(), "proof")
		text = strings.ReplaceAll(text, "PROOF", proof)
		probed := func(name string) string {
			return answer(fmt.Sprintf("time=%d", time.Now().Unix()), "home=/home/"+name, "boot="+name,
				"disk="+name, "digest="+b.digest)
		}
		reply := func(r protocol.Response) string { return replyText(t, &r) }
		master := fakeMachine(func(program, _ string) (string, error) {
			switch {
			case strings.Contains(program, "say os"):
				return probed("master"), nil
			case strings.Contains(program, "provision start"):
				return reply(protocol.Response{Observed: &protocol.Observed{Joined: true, Active: true,
					Working: true}}), nil
			case strings.Contains(program, "'token'"):
				return `{"token":"mlf1.x"}`, nil
			case strings.Contains(program, "'members'"):
				return `[{"node":"evil","state":"alive","address":"1.2.3.4:7422"},{"node":"master","state":"alive","address":"1.2.3.5:7422"}]`,
					nil
			case strings.Contains(program, "provision"):
				return reply(protocol.Response{}), nil
			}
			if i := strings.LastIndex(program, "exec "); i >= 0 && !strings.Contains(program, "'forget'") {
				t.Errorf("the master's shell is given: %s", program[i:])
			}
			// its mlfnode is not there, which does not matter
			_, err := shell.Output(t.Context(), shell.Local{}, program, nil)
			return "", err
		})
		worker := fakeMachine(func(program, _ string) (string, error) {
			switch {
			case strings.Contains(program, "say os"):
				return probed("evil"), nil
			case strings.Contains(program, "provision start"):
				return reply(protocol.Response{Observed: &protocol.Observed{Active: true, Working: true, Node: "evil"},
					FormerName: text, Done: []string{text}, Notes: []string{text}}), nil
			}
			return reply(protocol.Response{Observed: &protocol.Observed{Active: true, Working: true}}), nil
		})
		c := &Cluster{Hosts: []Host{{Address: "master", Roles: []grid.NodeRole{grid.Master}},
			{Address: "evil", Roles: []grid.NodeRole{grid.Worker}}}}
		all := Up(t.Context(), Options{Cluster: c, Builds: NewBuilds(self), LocalName: "laptop",
			OnEvent: func(Event) {},
			Dial: func(_ context.Context, address string) (shell.Machine, string, error) {
				if address == "master" {
					return master, address, nil
				}
				return worker, address, nil
			}})
		if _, err := os.Stat(proof); err == nil {
			t.Errorf("a program of the worker's choice ran on the master: %.60q", text)
		}
		for _, o := range all {
			for _, shown := range append(append(slices.Clone(o.Notes), o.Changed...),
				strings.ReplaceAll(cleanOf(o.Problem), "\n", "")) {
				if !printable.Plain(shown) {
					t.Errorf("%.60q is to be shown", shown)
				}
			}
		}
	}
}

// TestRepliesThatSayNothing has a machine answer nothing to each of its actions.
func TestRepliesThatSayNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"", "{}", "null", "[]", "{\"seen\":null}", "{\"seen\":{}}"} {
		o := Options{
			Cluster:   &Cluster{Hosts: []Host{{Address: "a", Roles: []grid.NodeRole{grid.Master, grid.Worker}}}},
			Builds:    NewBuilds(self),
			LocalName: "laptop", OnEvent: func(Event) {},
			Dial: func(_ context.Context, address string) (shell.Machine, string, error) {
				return fakeMachine(func(program, _ string) (string, error) {
					if strings.Contains(program, "say os") {
						return answer(fmt.Sprintf("time=%d", time.Now().Unix()), "digest="+strings.Repeat("ab", 32)),
							nil
					}
					return said, nil
				}), address, nil
			},
		}
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second) // for the one that is waited for
		down, err := Down(ctx, o, DownOptions{Purge: true})
		if err != nil {
			t.Errorf("%s: down: %v", said, err)
		}
		for _, all := range [][]Outcome{Up(ctx, o), down, Status(ctx, o)} {
			if len(all) != 1 {
				t.Errorf("%s: got %+v", said, all)
			}
		}
		stop()
	}
}

func cleanOf(p *shell.Problem) string {
	if p == nil {
		return ""
	}
	return p.Cause + p.Cure
}
