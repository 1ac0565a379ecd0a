package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap"
)

// TestViewOfManyHosts keeps within a terminal that has fewer lines than there are hosts: above its
// first line nothing can be written over.
func TestViewOfManyHosts(t *testing.T) {
	const columns, lines, hosts = 60, 12, 200
	var out bytes.Buffer
	v := &clusterView{w: &out}
	up := regexp.MustCompile(`\x1b\[(\d+)A`)
	for i := range hosts {
		name := fmt.Sprintf("host%d", i)
		v.showEvent(bootstrap.Event{Host: name, Step: bootstrap.Connect})
		if i%2 == 0 {
			v.showEvent(bootstrap.Event{Host: name, Step: bootstrap.Connect, Done: true,
				Err: errors.New(strings.Repeat("no answer ", 20))})
		}
		out.Reset()
		v.draw(columns, lines)
		text := up.ReplaceAllString(strings.ReplaceAll(out.String(), "\r\x1b[J", ""), "")
		if n := strings.Count(text, "\n"); n >= lines {
			t.Fatalf("%d hosts: got %d lines, want less than %d", i+1, n, lines)
		}
		for line := range strings.Lines(text) {
			if len([]rune(line)) > columns {
				t.Errorf("got a line of %d columns, want at most %d: %q", len([]rune(line)), columns, line)
			}
		}
		if m := up.FindStringSubmatch(out.String()); i > 0 && m == nil {
			t.Fatalf("%d hosts: the table is not written over the last one", i+1)
		} else if m != nil {
			if n, _ := strconv.Atoi(m[1]); n >= lines {
				t.Fatalf("%d hosts: the cursor goes up %d lines of %d", i+1, n, lines)
			}
		}
	}
	all := v.lines(lines - 1)
	if want := "200 hosts: 100 failed, connect 100"; all[0] != want {
		t.Errorf("got the summary %q, want %q", all[0], want)
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, "FAILED: no answer") ||
		!strings.Contains(text, "host1        connect …") {
		t.Errorf("want failed and busy hosts in\n%s", text)
	}
}

// TestTextIsWhole does not cut what is for people to read.
func TestTextIsWhole(t *testing.T) {
	var out bytes.Buffer
	long := strings.Repeat("word ", 20) + "end"
	table := newTextTable(&out, "host", "state")
	table.row(long, long)
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasSuffix(got, "  "+long+"\n") || strings.Count(got, "end") != 1 {
		t.Errorf("got\n%s\nwant the state whole and the host cut", got)
	}
}

// TestSecretQuestion shows questions that machines ask without what would change the terminal.
func TestSecretQuestion(t *testing.T) {
	for text, want := range map[string]string{
		"password of ada on host1":          "password of ada on host1: ",
		"ada on host1, Password: ":          "ada on host1, Password: ",
		"ada on host1, Token\x1b[2J\ncode?": "ada on host1, Token · code? ",
	} {
		if got := secretQuestion(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// show is what a terminal has on its lines after it got the text, which has no other sequences than
// those of a view.
func show(text string) string {
	lines := []string{""}
	sequence := regexp.MustCompile(`^\x1b\[(\d*)([AJ])`)
	for len(text) > 0 {
		m := sequence.FindStringSubmatch(text)
		switch {
		case m != nil && m[2] == "A":
			n, _ := strconv.Atoi(m[1])
			lines = lines[:len(lines)-n] // what follows removes them
		case m != nil, text[0] == '\r':
			lines[len(lines)-1] = ""
		case text[0] == '\n':
			lines = append(lines, "")
		default:
			lines[len(lines)-1] += text[:1]
		}
		if m != nil {
			text = text[len(m[0]):]
		} else {
			text = text[1:]
		}
	}
	return strings.Join(lines, "\n")
}

// TestQuestionInTheView asks while machines are being worked on: no line of the table stays above
// the question or comes into it, and the table goes on below the answer.
func TestQuestionInTheView(t *testing.T) {
	var out bytes.Buffer
	v := &clusterView{w: &out, terminal: true}
	v.showEvent(bootstrap.Event{Host: "host1", Step: bootstrap.Connect})
	v.showEvent(bootstrap.Event{Host: "host2", Step: bootstrap.Connect})
	resume := v.pause()
	within := v.pause()
	out.WriteString("Connect? (yes/no) ")
	v.showEvent(bootstrap.Event{Host: "host2", Step: bootstrap.Connect, Done: true})
	within()
	v.showEvent(bootstrap.Event{Host: "host2", Step: bootstrap.Check})
	if got, want := show(out.String()), "Connect? (yes/no) "; got != want {
		t.Errorf("during the question: got\n%s\nwant\n%s", got, want)
	}
	out.WriteString("yes\n")
	resume()
	v.showEvent(bootstrap.Event{Host: "host1", Step: bootstrap.Connect, Done: true})
	v.showEvent(bootstrap.Event{Host: "host1", Step: bootstrap.Check})
	if got, want := show(out.String()),
		"Connect? (yes/no) yes\nhost1        check …\nhost2        check …\n"; got != want {
		t.Errorf("after it: got\n%s\nwant\n%s", got, want)
	}
}
