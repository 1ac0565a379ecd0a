package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mlfnode/grid/gridtest"
)

// TestReport writes a report of a sweep whose names and output are markup, and opens it in Chromium without a network: what is in it is
// shown as text, every chart is drawn, and nothing is asked for or refused.
func TestReport(t *testing.T) {
	chromium := gridtest.Program(t, "chromium")
	c := newTestCluster(t)
	c.start()
	const hostile = `<img src=x onerror=alert(1)></script>`
	c.open("sweep", "-q", "--name", hostile[:28], "--set", "lr=0.1,0.01,0.001", "--set", "m="+hostile+",plain", "--set", "seed=0:4", "--",
		"sh", "-c", `case "$*" in *seed=3*) echo "<script>boom</script>" >&2; exit 3;; esac; echo "{\"loss\": $(echo "$*" | cksum | cut -c1-4)}" >>"$MLF_METRICS"`, "sh").exit(1)
	file := filepath.Join(t.TempDir(), "sweep.html")
	if said := c.open("report", "last", "-o", file).exit(0); !strings.Contains(said, "sh-1 is in "+file) {
		t.Errorf("got %q", said)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 500<<10 {
		t.Errorf("the report of 24 trials has %d bytes", len(text))
	}
	if bytes.Contains(text, []byte("<img")) || bytes.Contains(text, []byte("<script>")) || bytes.Count(text, []byte("</script>")) != 1 {
		t.Error("there is markup that came from the sweep")
	}
	data := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*)</script>`).FindSubmatch(text)
	var d struct {
		Sweep  struct{ Name string }
		Charts map[string]json.RawMessage
	}
	if data == nil || json.Unmarshal(data[1], &d) != nil || d.Sweep.Name != hostile[:28] || len(d.Charts) != 8 {
		t.Errorf("the data is not whole: %q, %d charts", d.Sweep.Name, len(d.Charts))
	}
	cmd := exec.Command(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
		"--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", "file://"+file)
	var dom, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &dom, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if strings.Contains(said.String(), "CONSOLE") {
		t.Errorf("the browser complains:\n%s", said.String())
	}
	for _, want := range []string{"<svg", "Best loss over time", "Share of each parameter", "Mean loss by lr", "Distribution of loss", "Trials over time", "&lt;img src=x", "boom"} {
		if !strings.Contains(dom.String(), want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// TestReportOfNothing writes a report of a sweep of which nothing has run, and fails to write one.
func TestReportOfNothing(t *testing.T) {
	c := newTestCluster(t)
	c.start()
	c.open("sweep", "-q", "-d", "--max-parallel", "1", "--set", "i=0:3", "--", "sleep", "600").exit(0)
	c.open("pause", "last").exit(0)
	if text := c.open("report", "last", "-o", "-").exit(0); !strings.Contains(text, "<!doctype html>") || !strings.Contains(text, "</html>") {
		t.Errorf("got %.300s", text)
	}
	missing := filepath.Join(t.TempDir(), "no", "sweep.html")
	if said := c.open("report", "last", "-o", missing).exit(1); !strings.Contains(said, "can't be written to") || !strings.Contains(said, "try: write it elsewhere") {
		t.Errorf("got %q", said)
	}
	if said := c.open("report", "sh-1/0").exit(2); !strings.Contains(said, "a report is about a sweep") {
		t.Errorf("got %q", said)
	}
	c.open("cancel", "last").exit(0)
}
