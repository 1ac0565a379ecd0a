package docker

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"mlfnode/node/executor"
)

// TestHeldOutputOutlivesItsReader runs a program that prints and ends between the death of one
// reader and the start of the next.
func TestHeldOutputOutlivesItsReader(t *testing.T) {
	o := Options{Token: "t", Dir: t.TempDir()}
	pipes := filepath.Join(o.Dir, o.containerName("a"), ioDir)
	if err := os.MkdirAll(pipes, 0o700); err != nil {
		t.Fatal(err)
	}
	stored, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	open := func() *outputPipes {
		out, err := newOutputPipes(pipes, &executor.Attempt{Stdout: stored, Stderr: stored}, [2]int64{},
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := open()
	release := o.HoldPipes("a")
	defer release()
	first.close()
	program, err := os.OpenFile(filepath.Join(pipes, stdoutPipe), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const text = "the last words\n"
	if _, err := program.WriteString(text); err != nil {
		t.Fatal(err)
	}
	program.Close()
	second := open()
	second.drain()
	second.close()
	if got, err := os.ReadFile(stored.Name()); err != nil || string(got) != text {
		t.Errorf("got %q, %v; want %q", got, err, text)
	}
}

// TestReplacedPipeIsHarmless checks that a program may replace its pipe by a link or a file without
// harm.
func TestReplacedPipeIsHarmless(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink("/dev/null", path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		dir := t.TempDir()
		if err := replace(filepath.Join(dir, stdoutPipe)); err != nil {
			t.Fatal(err)
		}
		if o, err := newOutputPipes(dir, &executor.Attempt{}, [2]int64{}, slog.New(slog.DiscardHandler)); err == nil {
			o.close()
			t.Errorf("%s: got it opened", name)
		}
	}
}
