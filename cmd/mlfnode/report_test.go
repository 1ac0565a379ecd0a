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

	"mlfnode/cmd/mlfnode/report"
	"mlfnode/grid/gridtest"
)

// TestReport writes a report of a sweep whose names and output are markup, and opens it in Chromium
// without a network: what is in it is shown as text, every chart is drawn, and nothing is asked for
// or refused.
func TestReport(t *testing.T) {
	chromium := gridtest.Program(t, "chromium")
	c := newTestCluster(t)
	c.start()
	const hostile = `<img src=x onerror=alert(1)></script>`
	c.open("sweep", "-q", "--name", hostile[:28], "--set", "lr=0.1,0.01,0.001", "--set",
		"m="+hostile+",plain", "--set", "seed=0:4", "--",
		"sh", "-c",
		`case "$*" in *seed=3*) echo "<script>boom</script>" >&2; exit 3;; esac; n=$(echo "$*" | cksum | cut -c1-4); printf '{"step": 1, "loss": 9999}\n{"step": 2, "loss": %s}\n' "$n" >>"$MLF_METRICS"`,
		"sh").exit(1)
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
	if bytes.Contains(text, []byte("<img")) || bytes.Contains(text, []byte("<script>")) ||
		bytes.Count(text, []byte("</script>")) != 1 {
		t.Error("there is markup that came from the sweep")
	}
	data := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*)</script>`).FindSubmatch(text)
	var d struct {
		Sweep  struct{ Name string }
		Charts map[string]json.RawMessage
	}
	if data == nil || json.Unmarshal(data[1], &d) != nil || d.Sweep.Name != hostile[:28] || len(d.Charts) != 11 {
		t.Errorf("the data is not whole: %q, %d charts", d.Sweep.Name, len(d.Charts))
	}
	cmd := exec.Command(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(),
		"--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", "file://"+file)
	var dom, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &dom, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if strings.Contains(said.String(), "CONSOLE") {
		t.Errorf("the browser complains:\n%s", said.String())
	}
	for _, want := range []string{"<svg", "Best loss over time", "Share of each parameter", "Mean loss by lr",
		"Distribution of loss", "Trials over time", "Trials along all parameters and loss", "Mean loss by ",
		"Curves of loss", "&lt;img src=x", "boom"} {
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
	if text := c.open("report", "last", "-o", "-").exit(0); !strings.Contains(text, "<!doctype html>") ||
		!strings.Contains(text, "</html>") {
		t.Errorf("got %.300s", text)
	}
	missing := filepath.Join(t.TempDir(), "no", "sweep.html")
	if said := c.open("report", "last", "-o", missing).exit(1); !strings.Contains(said, "can't be written to") ||
		!strings.Contains(said, "try: write it elsewhere") {
		t.Errorf("got %q", said)
	}
	if said := c.open("report", "sh-1/0").exit(2); !strings.Contains(said, "a report covers a whole sweep") {
		t.Errorf("got %q", said)
	}
	c.open("cancel", "last").exit(0)
}

// TestReportAsDocumented types the example of the manual.
func TestReportAsDocumented(t *testing.T) {
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitor.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(manual), "\n## A sweep as one file\n")
	_, example, _ := strings.Cut(section, "```\n")
	example, _, found := strings.Cut(example, "```\n")
	if !found {
		t.Fatal("the manual has no example of a report")
	}
	c := newTestCluster(t)
	c.start()
	c.open("sweep", "-q", "--set", "lr=0.1,0.01", "--", "sh", "-c", `echo '{"loss": 0.5}' >>"$MLF_METRICS"`).exit(0)
	dir := t.TempDir()
	cmd := exec.Command("sh", "-exc", example)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "MLF_STATE="+c.state)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"sh-1.html", "report.html"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Contains(b, []byte("</html>")) {
			t.Errorf("%s is not whole: %v", name, err)
		}
	}
	var d report.Data
	b, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil || d.Sweep.Sweep != "sh-1" || len(d.Best) != 2 ||
		len(d.Charts)+len(d.Missing) != len(report.Charts()) {
		t.Errorf("got %v, %d trials and %d charts of %q", err, len(d.Best), len(d.Charts), d.Sweep.Sweep)
	}
}
