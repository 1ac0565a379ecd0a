package grid

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestOriginFits checks that any origin can be stored after Truncate.
func TestOriginFits(t *testing.T) {
	if err := (*Origin)(nil).Check(); err != nil {
		t.Errorf("no origin: %v", err)
	}
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringN(0, 400, 4000), 0, 300)
		o := &Origin{User: "anna", Host: "lab", Folder: "/home/anna/x", Command: words.Draw(t, "command")}
		if rapid.Bool().Draw(t, "git") {
			o.Git = &Checkout{Commit: strings.Repeat("a", 40), Branch: "main", Changed: words.Draw(t, "changed")}
		}
		files := 0
		if o.Git != nil {
			files = len(o.Git.Changed)
		}
		o.Truncate()
		if err := o.Check(); err != nil {
			t.Fatal(err)
		}
		if g := o.Git; g != nil && len(g.Changed)+g.More != files {
			t.Fatalf("%d named and %d more of %d files", len(g.Changed), g.More, files)
		}
	})
}
