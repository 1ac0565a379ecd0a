package guarantees

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mlfnode/node/api"
)

// TestCheckpointManual runs the example of the manual as it stands there, with Ctrl-C in the
// middle.
func TestCheckpointManual(t *testing.T) {
	text, err := os.ReadFile("../../../docs/checkpoints.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, rest, _ := strings.Cut(string(text), "```"+language+"\n")
		code, _, ok := strings.Cut(rest, "```")
		if !ok {
			t.Fatalf("the manual has no example in %s", language)
		}
		return code
	}
	h := newHome(t)
	dir := filepath.Join(h.dir, "demo")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, language := range map[string]string{"project.yaml": "yaml", "main.py": "python"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(block(language)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	saved := func() bool {
		files, _ := filepath.Glob(filepath.Join(h.dir, "state", "mlfnode", "checkpoints", "*", "*", "*"))
		return len(files) > 0
	}
	if h.interruptOnce(saved, syscall.SIGINT, "sweep", "-q", dir) {
		t.Fatal("the example has ended before it was interrupted")
	}
	h.must("resume", "-q", "last")
	h.read(func(c *api.Client) {
		if got := output(t, c, 0)["stdout"]; !strings.HasSuffix(got, "total 4950\n") {
			t.Errorf("got %q, want the total of an example that nobody interrupts", got)
		}
		if tr := trials(t, c)[0]; tr.Attempts != 2 {
			t.Errorf("got %d attempts, want 2: the first was stopped and saved its state", tr.Attempts)
		}
	})
}
