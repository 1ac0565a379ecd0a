package failure

import (
	"cmp"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mlfnode/grid"
)

// sample is one line of a corpus: its class, the evidence, and the source of the text.
type sample struct {
	class    grid.Class
	evidence Evidence
	text     string
	source   string
}

// readCorpus reads lines of class, exit code, circumstances, text and source, separated by tabs. In
// the text \n is a line end, \r the return of a progress bar, and \e the start of a terminal escape
// sequence.
func readCorpus(t *testing.T, name string) (all []sample) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	unescape := strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\e`, "\x1b")
	for line := range strings.Lines(string(text)) {
		column := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(column) != 5 {
			t.Fatalf("%s: %d columns in %q", name, len(column), line)
		}
		s := sample{class: grid.Class(column[0]), text: unescape.Replace(column[3]), source: column[4]}
		s.evidence = Evidence{Class: grid.ClassExit, Stderr: []byte(s.text)}
		s.evidence.ExitCode, _ = strconv.Atoi(column[1]) // "" is none
		if s.evidence.ExitCode > 128 && s.evidence.ExitCode <= 128+64 {
			s.evidence.Class = grid.ClassSignal
		}
		circumstances(t, &s.evidence, column[2])
		all = append(all, s)
	}
	return all
}

func circumstances(t *testing.T, e *Evidence, text string) {
	for _, word := range strings.Fields(text) {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "vram":
			e.GPUFull, e.Neighbour = value == "full", value == "neighbour"
		case "xid":
			e.Device.Xid, _ = strconv.Atoi(value)
		case "device":
			e.Device.Gone = true
		case "cgroup":
			e.Class = grid.ClassMemory
		case "disk":
			e.DiskFull = true
		case "shm":
			e.ShmFull = true
		case "container":
			e.Container = true
		case "resume":
			e.Resume = true
		case "gpus":
			e.NoGPU = true
		case "ours":
			e.Class = grid.ClassHalt
		default:
			t.Fatalf("unknown circumstance %q", word)
		}
	}
}

// heldOut reports whether a sample belongs to the third from which no rules are derived. A
// repository is held out as a whole or not at all.
func (s *sample) heldOut() bool {
	repository, _, _ := strings.Cut(s.source, "#")
	h := fnv.New32a()
	h.Write([]byte(repository))
	return h.Sum32()%3 == 0
}

// score counts a classifier's results for samples of one class.
type score struct{ right, missed, wrong int }

func (s *score) precision() float64 { return share(s.right, s.right+s.wrong) }
func (s *score) recall() float64    { return share(s.right, s.right+s.missed) }

func share(part, all int) float64 {
	if all == 0 {
		return 1
	}
	return float64(part) / float64(all)
}

// measure classifies samples, prints each class's figures, and returns the total of the classes
// that a rule must find: exit and signal are what remains when no rule applies.
func measure(t *testing.T, what string, samples []sample) (total score) {
	t.Helper()
	rules, err := NewRules()
	if err != nil {
		t.Fatal(err)
	}
	scores := map[grid.Class]*score{}
	of := func(c grid.Class) *score {
		if scores[c] == nil {
			scores[c] = &score{}
		}
		return scores[c]
	}
	for i := range samples {
		s := &samples[i]
		v := rules.Classify(&s.evidence)
		if v.Class == s.class {
			of(s.class).right++
			continue
		}
		t.Logf("%s: got %s (rule %s), want %s: %.150q (%s)", what, v.Class, v.Rule, s.class, s.text, s.source)
		of(s.class).missed++
		of(v.Class).wrong++
	}
	classes := make([]grid.Class, 0, len(scores))
	for c := range scores {
		classes = append(classes, c)
	}
	slices.SortFunc(classes, func(a, b grid.Class) int { return cmp.Compare(a, b) })
	for _, c := range classes {
		s := scores[c]
		t.Logf("%s: %-11s n %3d  precision %.2f  recall %.2f", what, c, s.right+s.missed, s.precision(), s.recall())
		if c != grid.ClassExit && c != grid.ClassSignal {
			total.right, total.missed, total.wrong = total.right+s.right, total.missed+s.missed, total.wrong+s.wrong
		}
	}
	t.Logf(
		"%s: all classes but exit and signal: n %d  precision %.3f  recall %.3f", what, total.right+total.missed,
		total.precision(), total.recall(),
	)
	return total
}

func TestCorpus(t *testing.T) {
	all := readCorpus(t, "corpus.tsv")
	var known, held []sample
	for _, s := range all {
		if s.heldOut() {
			held = append(held, s)
		} else {
			known = append(known, s)
		}
	}
	if len(held) < len(all)/4 || len(held) > len(all)/2 {
		t.Fatalf("%d of %d samples are held out, want about a third", len(held), len(all))
	}
	measure(t, "rules' part", known)
	if s := measure(t, "held out", held); s.precision() < 0.97 || s.recall() < 0.85 {
		t.Errorf("held-out part: precision %.3f, recall %.3f; want 0.97 and 0.85 at least", s.precision(), s.recall())
	}
}

// TestFurtherOutput classifies output that was not used for writing the first rules: from
// well-known frameworks, and from issues that were looked up after the rules existed.
func TestFurtherOutput(t *testing.T) {
	for _, name := range []string{"further.tsv", "issues.tsv", "fresh.tsv", "later.tsv"} {
		if s := measure(t, name, readCorpus(t, name)); s.precision() < 0.97 || s.recall() < 0.85 {
			t.Errorf(
				"%s: got precision %.3f, recall %.3f; want 0.97 and 0.85 at least", name, s.precision(), s.recall(),
			)
		}
	}
}
