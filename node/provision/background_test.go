package provision

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
)

// TestLogOfARunningAgentStaysSmall has an agent go on writing into its log, far more than a log may
// hold.
func TestLogOfARunningAgentStaysSmall(t *testing.T) {
	p := protocol.Layout{Root: t.TempDir()}
	log, err := openLog(p)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	line := append(bytes.Repeat([]byte("x"), 1<<20-1), '\n')
	for i := range 3*maxLogSize>>20 + 1 {
		if _, err := log.Write(line); err != nil {
			t.Fatal(err)
		}
		if err := truncateFullLog(p); err != nil {
			t.Fatalf("after %d MiB: %v", i+1, err)
		}
	}
	if _, err := fmt.Fprintln(log, "the last line"); err != nil {
		t.Fatal(err)
	}
	if last := lastLines(p.Log(), 1); last != "the last line" {
		t.Errorf("the log ends with %.40q, want the last line", last)
	}
	for _, file := range []string{p.Log(), p.Log() + ".1"} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 || info.Size() > maxLogSize+int64(len(line)) {
			t.Errorf("%s has %d bytes, want some, and hardly more than %d", file, info.Size(), maxLogSize)
		}
	}
}
