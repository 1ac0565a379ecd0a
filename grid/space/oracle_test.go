package space

import (
	"bytes"
	"encoding/json"
	"math/big"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"
)

// oracleCase is a parameters file or an argument of --set.
type oracleCase struct {
	Name string `json:"name,omitempty"`
	Text string `json:"text,omitempty"`
	Set  string `json:"set,omitempty"`
}

func oracleCases(t *testing.T) (cases []oracleCase) {
	t.Helper()
	files, err := os.ReadFile("testdata/points/files.txt")
	check(t, err)
	marks := regexp.MustCompile(`(?m)^-- (\S+) --\n`).FindAllSubmatchIndex(files, -1)
	for i, m := range marks {
		end := len(files)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		cases = append(cases, oracleCase{Name: string(files[m[2]:m[3]]), Text: string(files[m[1]:end])})
	}
	sets, err := os.ReadFile("testdata/points/sets.txt")
	check(t, err)
	for line := range strings.Lines(string(sets)) {
		cases = append(cases, oracleCase{Set: strings.TrimSuffix(line, "\n")})
	}
	return cases
}

// TestPointsOfOracle compares the points of parameters files and of --set with those computed by a
// Python program.
func TestPointsOfOracle(t *testing.T) {
	t.Parallel()
	cases := oracleCases(t)
	if len(cases) < 80 {
		t.Fatalf("got %d cases, want 80", len(cases))
	}
	in, err := json.Marshal(cases)
	check(t, err)
	c := exec.CommandContext(t.Context(), gridtest.Program(t, "python3"), "testdata/points/oracle.py")
	c.Stdin, c.Stderr = bytes.NewReader(in), os.Stderr
	out, err := c.Output()
	check(t, err)
	var want [][][][2]string
	check(t, json.Unmarshal(out, &want))
	for i, c := range cases {
		var axes []Axis
		var err error
		if c.Set != "" {
			axes = make([]Axis, 1)
			axes[0], err = ParseSet(c.Set)
		} else {
			axes, err = ParseParameters(c.Name, []byte(c.Text))
		}
		if err != nil {
			t.Errorf("%s%s: %v", c.Name, c.Set, err)
			continue
		}
		comparePoints(t, c.Name+c.Set, axes, want[i])
	}
}

func comparePoints(t *testing.T, name string, axes []Axis, want [][][2]string) {
	t.Helper()
	s, err := New(axes, nil)
	check(t, err)
	if s.Count() != int64(len(want)) {
		t.Errorf("%s: got %d points, want %d", name, s.Count(), len(want))
		return
	}
	for i, point := range want {
		p, err := s.At(int64(i))
		check(t, err)
		same := len(p) == len(point)
		for k := 0; same && k < len(p); k++ {
			same = p[k].Key == point[k][0] && isOracleValue(p[k].Value, point[k][1])
		}
		if !same {
			t.Errorf("%s: point %d: got %s, want %v", name, i, p.AppendJSON(nil), point)
		}
		if at, ok := s.Index(p); !ok || at != int64(i) {
			t.Errorf("%s: the index of point %d is %d, %v", name, i, at, ok)
		}
	}
}

// isOracleValue compares a value with the oracle's output for it.
func isOracleValue(v Value, want string) bool {
	kind, text, _ := strings.Cut(want, ":")
	switch kind {
	case "true":
		return v.Kind == True
	case "false":
		return v.Kind == False
	case "n":
		return v == Value{Text: text, Kind: Number}
	case "t":
		return v == Value{Text: text}
	case "l":
		var words []string
		return v.Kind == List && json.Unmarshal([]byte(text), &words) == nil &&
			strings.Join(v.Words(), "\x00") == strings.Join(words, "\x00")
	case "d":
		got, ok := new(big.Rat).SetString(v.Text)
		exact, ok2 := new(big.Rat).SetString(text)
		return v.Kind == Number && ok && ok2 && got.Cmp(exact) == 0
	case "f":
		got, err := strconv.ParseFloat(v.Text, 64)
		exact, err2 := strconv.ParseFloat(text, 64)
		return v.Kind == Number && err == nil && err2 == nil && got == exact
	}
	return false
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
