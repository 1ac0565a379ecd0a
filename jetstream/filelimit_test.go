package jetstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// fewFilesEnv turns the test binary into a server that can open no file for a connection.
const fewFilesEnv = "MLF_TEST_FEW_FILES"

// lineCount counts logged lines.
type lineCount struct{ n atomic.Int64 }

// Write implements io.Writer.
func (c *lineCount) Write(p []byte) (int, error) {
	c.n.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

// TestFileLimitChild is the process that TestFileLimit connects to.
func TestFileLimitChild(t *testing.T) {
	dir := os.Getenv(fewFilesEnv)
	if dir == "" {
		t.Skip("runs as a child of TestFileLimit")
	}
	var lines lineCount
	own := newAuthority(t).tlsConfig("m")
	server, err := Start(Config{Dir: dir, Node: "m", Logger: slog.New(slog.NewTextHandler(&lines, nil)),
		Listen: &natsd.Listen{
			Host: "127.0.0.1", TLS: own, Peer: func(tls.ConnectionState) (grid.NodeID, error) { return "a", nil },
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	free, err := os.Open(dir) // has the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = uint64(free.Fd())
	free.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before := cpuTime(t)
	lines.n.Store(0)
	fmt.Printf("+%d\n", server.Addr().(*net.TCPAddr).Port)
	<-time.After(time.Second)
	fmt.Printf("+%d %d\n", lines.n.Load(), (cpuTime(t) - before).Milliseconds())
}

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// TestFileLimit connects to a server that can open no file for a connection: the server neither
// uses much processor time nor fills the log.
func TestFileLimit(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileLimitChild$")
	cmd.Env = append(os.Environ(), fewFilesEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "+")
		if said = append(said, lines.Text()); !ok || strings.Contains(text, " ") {
			continue
		}
		conn, err := net.Dial("tcp", "127.0.0.1:"+text)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if err := cmd.Wait(); err != nil || len(said) < 2 {
		t.Fatalf("the server ended with %v: %q", err, said)
	}
	var logged, used int
	if _, err := fmt.Sscanf(said[1], "+%d %d", &logged, &used); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	if logged == 0 || logged > 20 || used > 500 {
		t.Errorf("in a second without files: %d lines in the log and %d ms of processor time, want a few of each",
			logged, used)
	}
}
