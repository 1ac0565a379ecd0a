package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"mvdan.cc/sh/v3/shell"
	"mvdan.cc/sh/v3/syntax"

	"mlfnode/cluster/trust"
	"mlfnode/node"
	"mlfnode/node/api"
)

// manualBlock is a fenced block of the manual: its language, the file that it is, its text.
var manualBlock = regexp.MustCompile("(?ms)^```(\\w*) ?(\\S*)\n(.*?)^```\n")

// TestManual runs the examples of pages: blocks with the name of a file make it, and commands
// behind $ in console blocks print what stands below them. There … stands for anything on the line.
// Blocks without a language are not run: they need ssh, another machine or packages of their own.
func TestManual(t *testing.T) {
	for _, page := range []string{"migrating", "parameters", "projects", "results", "running",
		"settings", "start", "trial"} {
		t.Run(page, func(t *testing.T) { runManual(t, filepath.Join("docs", page+".md"), func() {}) })
	}
	t.Run("clusters", func(t *testing.T) { runManual(t, "docs/clusters.md", func() { manualCluster(t) }) })
	t.Run("README", func(t *testing.T) {
		runManual(t, "README.md", func() {
			if err := os.WriteFile("train.py", []byte("import sys\nprint(sys.argv[1:])\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// runManual runs the examples of a page in a folder of their own, after prepare.
func runManual(t *testing.T, name string, prepare func()) {
	page, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, variable := range []string{"HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(variable, t.TempDir())
	}
	t.Setenv("MLF_CPUS", "2")
	prepare()
	commands := 0
	for _, m := range manualBlock.FindAllSubmatch(page, -1) {
		language, file, text := string(m[1]), string(m[2]), string(m[3])
		if file != "" {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if language != "console" {
			continue
		}
		for _, example := range strings.Split("\n"+text, "\n$ ")[1:] {
			line, want, _ := strings.Cut(strings.TrimSuffix(example, "\n")+"\n", "\n")
			exit := 0
			if before, _, fails := strings.Cut(line, " # exits with 1"); fails {
				line, exit = before, 1
			}
			args, err := shell.Fields(strings.TrimPrefix(line, "mlfnode "), nil)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if args[0] == "cd" {
				t.Chdir(args[1])
				continue
			}
			shown := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
			if !strings.Contains(line, "--sample") {
				shown += "$"
			}
			for limit := time.Now().Add(clientTimeout); ; {
				var out, errs bytes.Buffer
				code := run(t.Context(), &interrupts{}, args, &out, &errs)
				got := strings.TrimRight(out.String(), "\n") + "\n"
				if code == exit && (want == "" || regexp.MustCompile(shown).MatchString(got)) {
					break
				}
				if args[0] == "members" && time.Now().Before(limit) {
					continue // gossip takes its time
				}
				t.Errorf("%s: exit code %d, got\n%s%s\nwant\n%s", line, code, got, errs.String(), want)
				break
			}
			commands++
		}
	}
	if commands == 0 {
		t.Error("the page has no examples")
	}
}

// manualCluster is the cluster of docs/clusters.md in this process: hostA is the master and runs
// trials, hostB is a worker with labels. Commands are those of a user of hostA.
func manualCluster(t *testing.T) {
	c := &movingCluster{t: t}
	master := c.settings("hostA")
	master.Cluster.Worker = true
	c.startMaster(master)
	t.Cleanup(c.stopMaster)
	made, err := c.client.Access().MakeToken(t.Context(), api.NewToken{Role: "node", User: "none"})
	if err != nil {
		t.Fatal(err)
	}
	token, err := trust.ParseToken(made.Token)
	if err != nil {
		t.Fatal(err)
	}
	c.workerAs = c.settings("hostB")
	c.workerAs.Labels = []string{"a100", "fast-disk"}
	if _, err := node.Join(t.Context(), c.workerAs, fmt.Sprintf("127.0.0.1:%d", master.Cluster.Ports.API),
		token); err != nil {
		t.Fatal(err)
	}
	c.startWorker()
	t.Cleanup(func() {
		c.worker.Stop()
		c.worker.Close()
	})
	t.Setenv("MLF_STATE", master.StateDir)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(clientTimeout); ; {
		if strings.Contains(c.mlfnode(0, "members"), "\nhostB  alive") {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("hostB is not there")
		}
	}
}

// shellLine is a line of a fenced block that calls mlfnode first; calls that come later on a line
// are found in it.
var shellLine = regexp.MustCompile(`(?m)^(?:\$ |  )?((?:[A-Z_]+=\S* )?(?:ML/bin/)?mlfnode( .*|$))`)

// inlineCall is a command within running text. It may be a part of one: the command alone, or with
// some of its arguments.
var inlineCall = regexp.MustCompile("`((?:[A-Z_]+=\\S* )?mlfnode [a-z-][^`\n]*)`")

// TestExamplesAreCommands parses each line of the manual that calls mlfnode, and the examples of
// --help. The command and its flags exist, and outside of running text the arguments are as many as
// it takes.
func TestExamplesAreCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, page := range append(pages, "../../README.md", "../../projects/template/README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range manualBlock.FindAllSubmatch(b, -1) {
			for _, m := range shellLine.FindAllSubmatch(block[3], -1) {
				usage := bytes.HasSuffix(m[1], []byte("[flags]")) // of docs/reference.md
				if !usage && (len(block[1]) == 0 || string(block[1]) == "console") {
					checkCalls(t, page, string(m[1]), true)
					lines++
				}
			}
		}
		for _, m := range inlineCall.FindAllSubmatch(manualBlock.ReplaceAll(b, nil), -1) {
			checkCalls(t, page, string(m[1]), false)
			lines++
		}
	}
	if lines < 300 {
		t.Errorf("found %d examples; there are more", lines)
	}
}

// checkCalls checks the calls of mlfnode on a line of shell.
func checkCalls(t *testing.T, where, line string, whole bool) {
	t.Helper()
	line = regexp.MustCompile(`  +[a-z].*`).ReplaceAllString(line, "") // in an example of --help: what it does
	file, err := syntax.NewParser().Parse(strings.NewReader(line), "")
	if err != nil {
		t.Errorf("%s: %s: %v", where, line, err)
		return
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok && len(c.Args) > 0 && filepath.Base(c.Args[0].Lit()) == "mlfnode" {
			var args []string
			for _, w := range c.Args[1:] {
				args = append(args, plainWord(w)...)
			}
			if err := checkCall(args, whole); err != nil {
				t.Errorf("%s: %s: %v", where, line, err)
			}
		}
		return true
	})
}

// plainWord gives the words that a shell makes of one, x where only a running one could tell.
func plainWord(w *syntax.Word) []string {
	var text bytes.Buffer
	if err := syntax.NewPrinter().Print(&text, w); err != nil {
		return []string{"x"}
	}
	words, err := shell.Fields(text.String(), func(string) string { return "x" })
	if err != nil {
		return []string{"x"}
	}
	return words
}

// placeholder stands for a value in the manual, as N does.
var placeholder = regexp.MustCompile(`^[A-Z_:]+$|^…$`)

// checkCall parses a command line without running it. whole is one with all of its arguments.
func checkCall(args []string, whole bool) error {
	root := rootCommand(newTestApp(io.Discard, io.Discard))
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	c, rest, err := root.Find(joinOptional(root, args))
	if err != nil {
		return err
	}
	var invalid *pflag.InvalidValueError
	switch err := c.ParseFlags(rest); {
	case errors.Is(err, pflag.ErrHelp), errors.As(err, &invalid) && placeholder.MatchString(invalid.GetValue()):
		return nil
	case err != nil:
		return err
	}
	if whole || c == root {
		return c.ValidateArgs(c.Flags().Args())
	}
	return nil
}

// TestWrongExamplesAreFound has examples that a program would refuse.
func TestWrongExamplesAreFound(t *testing.T) {
	for _, line := range []string{"swep x", "sweeps --jsn", "trials", "trials a b", "set last --priority high",
		"token --expires soon", "up -q"} {
		if err := checkCall(strings.Fields(line), true); err == nil {
			t.Errorf("mlfnode %s: got no error", line)
		}
	}
	for _, line := range []string{"up -f", "up -f cluster.yaml", "set SWEEP --priority N", "doctor --classify -",
		"--local results last", "completion bash --help"} {
		if err := checkCall(strings.Fields(line), true); err != nil {
			t.Errorf("mlfnode %s: %v", line, err)
		}
	}
}

var (
	heading  = regexp.MustCompile("(?m)^#+ (.*)$")
	anchor   = regexp.MustCompile(`<a id="([^"]+)">`)
	pageLink = regexp.MustCompile(`\]\(([^)\s#]*)(?:#([^)\s]*))?\)`)
	noAnchor = regexp.MustCompile("[^\\pL\\pN_ -]+") // what GitHub leaves out of the anchor of a heading
)

// TestLinksOfTheManual follows the links between the pages: the file and the heading exist.
func TestLinksOfTheManual(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	text, anchors := map[string]string{}, map[string]map[string]bool{}
	for _, page := range append(pages, "../../README.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text[page], anchors[page] = manualBlock.ReplaceAllString(string(b), ""), map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(text[page], -1) {
			anchors[page][strings.ReplaceAll(strings.ToLower(noAnchor.ReplaceAllString(m[1], "")), " ", "-")] = true
		}
		for _, m := range anchor.FindAllStringSubmatch(text[page], -1) {
			anchors[page][m[1]] = true
		}
	}
	links := 0
	for page := range text {
		for _, m := range pageLink.FindAllStringSubmatch(text[page], -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			to := page
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(page), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if known, ok := anchors[to]; ok && m[2] != "" && !known[m[2]] {
				t.Errorf("%s: %s has no heading for #%s", page, to, m[2])
			}
		}
	}
	if links < 50 {
		t.Errorf("found %d links; there are more", links)
	}
}
