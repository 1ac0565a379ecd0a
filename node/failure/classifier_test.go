package failure

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

func builtinRules(t testing.TB, files ...Source) *Rules {
	t.Helper()
	rules, err := NewRules(files...)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

const traceback = "Traceback (most recent call last):\n  File \"t.py\", line 3, in f\n    g()\n"

func TestStreams(t *testing.T) {
	rules := builtinRules(t)
	tests := map[string]struct {
		stdout, stderr string
		want           grid.Class
	}{
		"the cause is on stdout": {
			traceback + "OSError: [Errno 28] No space left on device", "", grid.ClassDisk,
		},
		"a traceback beats what was printed": {
			"CUDA out of memory, next try", traceback + "KeyError: 'x'", grid.ClassExit,
		},
		"a traceback on stdout beats warnings": {
			traceback + "KeyError: 'x'", "address already in use, next port", grid.ClassExit,
		},
		"a launcher points at the other stream": {
			"OSError: [Errno 28] No space left on device",
			traceback + "subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1.", grid.ClassDisk,
		},
		"a launcher points at what is above": {
			"",
			traceback + "OSError: [Errno 98] Address already in use\n" + traceback + "ChildFailedError: rank 0 failed",
			grid.ClassPort,
		},
		"a progress bar hides nothing": {
			"", "50%|###\rOSError: [Errno 28] No space left on device\r", grid.ClassDisk,
		},
		"colours hide nothing": {
			"", "\x1b[31mOSError: [Errno 28] \x1b[1mNo space\x1b[0m left on device\x1b[0m", grid.ClassDisk,
		},
		"srun numbers its lines": {
			"",
			"0: " + strings.ReplaceAll(
				traceback, "\n", "\n0: ",
			) + "OSError: [Errno 98] Address already in use\n1: " + "RuntimeError: NCCL error in: x",
			grid.ClassPort,
		},
		"and mpirun does so in brackets": {
			"",
			"[0] " + strings.ReplaceAll(
				traceback, "\n", "\n[0] ",
			) + "OSError: [Errno 98] Address already in use\n[1] " + "RuntimeError: NCCL error in: x",
			grid.ClassPort,
		},
		"numbers of steps are not ranks": {
			"", "[9] OSError: No space left on device\n[10] loss 0.3\n" + traceback + "KeyError: 'x'", grid.ClassExit,
		},
		"nor are they with colons": {
			"",
			"9: OSError: No space left on device\n10: loss 0.3\n11: loss 0.2\n12: x\n13: x\n14: x\n15: x\n16: x\n17: x\n" + traceback + "KeyError: 'x'",
			grid.ClassExit,
		},
		"nor are ranks of results": {
			"", "OSError: No space left on device\nrank1 0.81 rank5 0.93\n" + traceback + "KeyError: 'x'",
			grid.ClassExit,
		},
		"nor numbers before caught errors": {
			"", "[9] OSError: No space left on device\n" + strings.Repeat("[10] loss 0.3\n", 200), grid.ClassExit,
		},
		"an error long before the end": {
			"", "OSError: [Errno 28] No space left on device\n" + strings.Repeat("step\n", 200), grid.ClassExit,
		},
		"a traceback long before the end": {
			"", traceback + "OSError: [Errno 28] No space left on device\n" + strings.Repeat("step\n", 200),
			grid.ClassExit,
		},
		"source code is not what happened": {
			"", traceback + "    raise OSError('No space left on device')\nValueError: x", grid.ClassExit,
		},
		"a chain is told by its beginning": {
			"",
			traceback +
				"OSError: [Errno 28] No space left on device\nDuring handling of the above exception, another exception occurred:\n" + traceback + "ValueError: x",
			grid.ClassDisk,
		},
		"an earlier chain is not": {
			"", traceback + "OSError: [Errno 28] No space left on device\n" + traceback + "ValueError: x",
			grid.ClassExit,
		},
		"nothing was printed": {"", "", grid.ClassExit},
		"what is not text is looked at too": {
			"", "\xff\x00\xfe\nOSError: [Errno 28] No space left on device \xff", grid.ClassDisk,
		},
	}
	for name, c := range tests {
		v := rules.Classify(
			&Evidence{Class: grid.ClassExit, ExitCode: 1, Stdout: []byte(c.stdout), Stderr: []byte(c.stderr)},
		)
		if v.Class != c.want {
			t.Errorf("%s: got %s (rule %s, line %q), want %s", name, v.Class, v.Rule, v.Line, c.want)
		}
	}
}

// TestWhatStands checks that evidence from the executor and from devices takes precedence over
// output.
func TestWhatStands(t *testing.T) {
	rules := builtinRules(t)
	disk := []byte("OSError: [Errno 28] No space left on device")
	for _, class := range []grid.Class{
		grid.ClassCancel, grid.ClassHalt, grid.ClassTimeout, grid.ClassIdle, grid.ClassMemory, grid.ClassNode,
		grid.ClassLost, grid.ClassNone,
	} {
		if v := rules.Classify(&Evidence{Class: class, Stderr: disk}); v.Class != class || v.Rule != "" {
			t.Errorf("%s: got %s by %s", class, v.Class, v.Rule)
		}
	}
	for _, c := range []struct {
		device DeviceFault
		output string
		want   grid.Class
	}{
		{DeviceFault{Gone: true}, "OSError: [Errno 28] No space left on device", grid.ClassGPUFault},
		{DeviceFault{Xid: 79}, "", grid.ClassGPUFault},
		{DeviceFault{Xid: 999}, "", grid.ClassGPUFault},
		{DeviceFault{Xid: 74}, "", grid.ClassExit},
		{DeviceFault{Xid: 74, Several: true}, "", grid.ClassGPUFault},
		{DeviceFault{Xid: 63}, "", grid.ClassExit},
		{DeviceFault{Xid: 13}, "", grid.ClassCUDAError},
		{DeviceFault{Xid: 13}, "RuntimeError: CUDA error: uncorrectable ECC error encountered", grid.ClassGPUFault},
		{DeviceFault{Xid: 13}, "RuntimeError: CUDA error: device-side assert triggered", grid.ClassCUDAError},
		{DeviceFault{Xid: 43}, "RuntimeError: CUDA out of memory. Tried to allocate 1 GiB", grid.ClassCUDAMemory},
	} {
		c.device.UUID = "GPU-1"
		v := rules.Classify(&Evidence{Class: grid.ClassExit, ExitCode: 1, Device: c.device, Stderr: []byte(c.output)})
		if v.Class != c.want {
			t.Errorf("%+v, %q: got %s (%s), want %s", c.device, c.output, v.Class, v.Rule, c.want)
		}
		if device := grid.FailureOf(v.Class).Suspect == grid.ScopeDevice; device != (v.Device == "GPU-1") {
			t.Errorf("%+v, %q: %s blames device %q", c.device, c.output, v.Class, v.Device)
		}
	}
	for code, hint := range map[int]bool{128 + 4: true, 128 + 11: true, 128 + 9: false} {
		if v := rules.Classify(&Evidence{Class: grid.ClassSignal, ExitCode: code}); v.Class != grid.ClassSignal ||
			(v.Hint != "") != hint {
			t.Errorf("code %d: got %+v", code, v)
		}
	}
}

// TestLiteralsLoseNothing compares what the automaton lets through with what the patterns match on
// every line of the corpora.
func TestLiteralsLoseNothing(t *testing.T) {
	rules := builtinRules(t)
	for i := range rules.patterns {
		if p := &rules.patterns[i]; p.literals == nil && p.re().String() != "(?-s:.)" {
			t.Errorf("pattern without literals, tried on every line: %s", p.re())
		}
	}
	matched := 0
	for _, name := range []string{"corpus.tsv", "further.tsv"} {
		for _, s := range readCorpus(t, name) {
			for _, line := range strings.Split(s.text, "\n") {
				var found []int
				rules.matcher.scan(line, func(p int) { found = append(found, p) })
				for i := range rules.patterns {
					if p := &rules.patterns[i]; p.literals != nil && p.re().MatchString(line) {
						matched++
						if !slices.Contains(found, i) {
							t.Errorf("%q matches %q, which has none of %q", p.re(), line, p.literals)
						}
					}
				}
			}
		}
	}
	if matched < 300 {
		t.Errorf("got %d matches, which tells little", matched)
	}
	for pattern, want := range map[string][]string{
		`abcdef|ghijkl`: {"abcdef", "ghijkl"}, `a|b`: nil, `(Foo)+`: {"foo"}, `(foo)*`: nil, `x{2,}abcd`: {"abcd"},
		`(?i)FooBar`: {"foobar"}, `abc|x`: nil,
		`ab.*wxyz`: {"wxyz"}, `äöü`: nil, ``: nil, `(foo|bar)?bazz`: {"bazz"}, `abcdefghijklmnop`: {"abcdefghijkl"},
	} {
		re, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		if got := literals(re.Simplify()); !slices.Equal(got, want) {
			t.Errorf("%s: got literals %q, want %q", pattern, got, want)
		}
	}
}

func TestRulesOfALab(t *testing.T) {
	lab := Source{
		"failures.yaml",
		[]byte(
			"rules:\n  - class: port\n    match: ['licence server .* busy', '[0-9]']\n    hint: ask Ann\n  - {class: exit, match: 'No space left on device'}\n",
		),
	}
	rules := builtinRules(t, lab)
	for text, want := range map[string]Verdict{
		"the licence server x is busy":               {Class: grid.ClassPort, Rule: "failures.yaml:2", Hint: "ask Ann"},
		"OSError: No space left on device":           {Class: grid.ClassExit, Rule: "failures.yaml:5"},
		"RuntimeError: CUDA out of memory. Tried to": {Class: grid.ClassCUDAMemory, Rule: "cuda_oom/torch"},
	} {
		want.Line = text
		if got := rules.Classify(&Evidence{Class: grid.ClassExit, ExitCode: 1, Stderr: []byte(text)}); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"rules: 1":                     "failures.yaml:1:8: rules is not a list",
		"rules:\n- {class: port}":      "failures.yaml:2:3: a rule has nothing to match",
		"rules:\n- {match: port}":      "failures.yaml:2:3: a rule has no class",
		"rules:\n- 1":                  "failures.yaml:2:3: a rule is not a map",
		"rules:\n- {class: x}":         `failures.yaml:2:11: "x" is not a failure class`,
		"rules:\n- {class: cancelled}": `failures.yaml:2:11: "cancelled" is not a failure class`,
		"rules:\n- {match: '('}":       "failures.yaml:2:11: missing closing )",
		"rules:\n- {match: []}":        "failures.yaml:2:3: a rule has no class",
		"rules:\n- {when: moon}":       `failures.yaml:2:10: "moon" is not a condition`,
		"rules:\n- {codes: [0, x]}":    `failures.yaml:2:12: "0" is not an exit code`,
		"rules:\n- {clas: port}":       `failures.yaml:2:4: a rule has the unknown field "clas"`,
		"noise: [x]":                   `failures.yaml:1:1: the file has the unknown field "noise"`,
		"[]":                           "failures.yaml:1:1: the file is not a map",
		"\t":                           "failures.yaml: yaml: ",
		"rules:\n- {class: [a]}":       "failures.yaml:2:11: a value is not text",
		"rules: [" + strings.Repeat(
			"{class: port, match: x},", maxRules+1,
		) + "]": "failures.yaml:1:8: the file has 201 rules",
	} {
		if _, err := NewRules(Source{"failures.yaml", []byte(text)}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: got error %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "rules: []\n"} {
		if _, err := NewRules(Source{"failures.yaml", []byte(text)}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte(traceback+"OSError: x"), []byte("[rank1]: x\r\x1b[1m"), 1)
	f.Add([]byte("╭─ Traceback (most recent call last) ─╮\n│ x"), []byte("0: \n1: "), 139)
	rules := builtinRules(f)
	f.Fuzz(func(t *testing.T, stdout, stderr []byte, code int) {
		e := &Evidence{Class: grid.ClassExit, ExitCode: code, Stdout: stdout, Stderr: stderr}
		v := rules.Classify(e)
		if v.Class == "" || (v.Line != "" && v.Rule == "") {
			t.Errorf("got %+v", v)
		}
		if again := rules.Classify(e); again != v {
			t.Errorf("got %+v, then %+v", v, again)
		}
	})
}

// FuzzPattern checks that alternatives that are tried one by one match what the whole expression
// matches.
func FuzzPattern(f *testing.F) {
	f.Add(`a|b(c|d)|[Ee]rror: (?i:x|Y)+$`, "error: xyx")
	f.Add(`(?i)abc|abd|^$|\bq\B|(?m)^z`, "ABD\nz")
	f.Add(`Connect(ion)?Timeout|Connection (refused|reset)|x{2,3}?|\Qa|b\E`, "Connection reset")
	f.Fuzz(func(t *testing.T, text, line string) {
		parsed, err := syntax.Parse(text, syntax.Perl)
		if err != nil || len(text) > maxPattern {
			return
		}
		got := slices.ContainsFunc(splitAlternatives(parsed), func(p pattern) bool { return p.re().MatchString(line) })
		if want := regexp.MustCompile(text).MatchString(line); got != want {
			t.Errorf("%q on %q: got %v, want %v", text, line, got, want)
		}
	})
}

// logOf returns 64 KiB of training output.
func logOf(line func(i int) string) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < MaxOutput; i++ {
		b.WriteString(line(i))
	}
	return b.Bytes()[:MaxOutput]
}

func BenchmarkClassify(b *testing.B) {
	rules := builtinRules(b)
	step := func(i int) string {
		return fmt.Sprintf(
			"epoch %d step %d loss 0.%06d lr 1e-3 gpu_mem 11.2G images/s %d\n", i/100, i, i*7919%1000000, i%977,
		)
	}
	logs := map[string][]byte{
		"steps": logOf(step),
		"caught errors": logOf(func(i int) string {
			return fmt.Sprintf("[rank%d]: ERROR: RuntimeError: CUDA error in step %d\n", i%8, i)
		}),
		"tracebacks":    logOf(func(int) string { return traceback + "ValueError: allocation failed: bad value\n" }),
		"one long line": bytes.Repeat([]byte("error "), MaxOutput/6),
		"almost matches": logOf(func(int) string {
			return "[rank0]: Errno 28 address already in us illegal memory acces failed: out of memor CUDA error: \n"
		}),
	}
	var words []string
	for i := range rules.patterns {
		words = append(words, rules.patterns[i].literals...)
	}
	pick := func(i, n int) string {
		var all []string
		for j := range n {
			all = append(all, words[(i*n+j)*31%len(words)])
		}
		return strings.Join(all, " ")
	}
	logs["a word of a rule on each line"] = logOf(
		func(i int) string { return "[rank1]: " + pick(i, 1) + " in step 7 of the first epoch\n" },
	)
	logs["eight words on each line"] = logOf(func(i int) string { return "[rank1]: " + pick(i, 8) + "\n" })
	logs["all words on long lines"] = logOf(func(i int) string { return "[rank1]: " + pick(i, 300) + "\n" })
	logs["all words on one line"] = logOf(func(i int) string { return pick(i, 300) })
	logs["survived errors"] = logOf(func(i int) string {
		return fmt.Sprintf(
			"[rank0]: W: retrying: OSError: [Errno 28] No space left on device: CUDA error: out of memory, Address already in use %d\n",
			i,
		)
	})
	logs["colours"] = logOf(func(i int) string { return "\x1b[31m\x1b[1merror\x1b[0m: \x1b]0;title\x07step\r" })
	logs["short lines"] = logOf(func(i int) string { return "1\n" })
	logs["almost ranks"] = logOf(func(i int) string { return "(RayWorker pid=12345, ip=10.0.0.1\n[rank\n12345: \n" })
	logs["no end of a colour"] = logOf(func(i int) string { return "\x1b]" })
	for name, log := range logs {
		b.Run(name, func(b *testing.B) {
			e := &Evidence{Class: grid.ClassExit, ExitCode: 1, Stdout: log[len(log)/2:], Stderr: log[:len(log)/2]}
			before := processTime(b)
			for b.Loop() {
				rules.Classify(e)
			}
			// more informative on a machine that has other work
			b.ReportMetric(float64((processTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// processTime returns the CPU time that this process has used.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkNewRules(b *testing.B) {
	for b.Loop() {
		builtinRules(b)
	}
}
