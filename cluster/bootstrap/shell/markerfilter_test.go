package shell

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"
)

// Each login shell reads the command line the same way.
func TestLoginShells(t *testing.T) {
	for _, name := range []string{"sh", "bash", "dash", "zsh", "fish", "tcsh"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			text := "it's \"$HOME\" \\ 100% `x` !! ! ~ {a,b} \t\\n\\c\\0 ü;\n# end"
			marked, line := withMarker("cat; printf %s " + Quote(text))
			c := exec.Command(gridtest.Program(t, name), "-c", commandLine(marked))
			c.Stdin = strings.NewReader("stdin\n")
			var errs bytes.Buffer
			c.Stderr = &errs
			got, err := c.Output()
			if want := line + "stdin\n" + text; err != nil || string(got) != want {
				t.Errorf("output = %q, %v; want %q", got, err, want)
			}
			if errs.String() != line {
				t.Errorf("stderr = %q; want the mark alone", errs.String())
			}
		})
	}
}

// The mark is found wherever writes cut it, and what came before it stays bounded.
func TestAfterMark(t *testing.T) {
	for size := 1; size < 40; size++ {
		var got bytes.Buffer
		_, line := withMarker("")
		a := &markerFilter{marker: line, dst: &got}
		for chunk := range slices.Chunk([]byte(strings.Repeat("hello ", 5000)+line+"rest of it"), size) {
			_, _ = a.Write(chunk) // its error is always nil
		}
		started, before, _ := a.result()
		if got.String() != "rest of it" || !started || len(before) > tailSize {
			t.Errorf("in writes of %d: %q, started %v, %d bytes kept before it; want %q and at most %d", size,
				got.String(), started, len(before), "rest of it", tailSize)
		}
	}
}
