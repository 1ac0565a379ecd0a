package trust

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// keepFiles copies some files of a folder to a new one.
func keepFiles(t *testing.T, from string, keep func(name string) bool) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if keep(e.Name()) {
			if err := os.WriteFile(filepath.Join(dir, e.Name()), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// TestEverySetOfFiles tries every set of files that a kill, or a careless hand, can leave: the
// authority opens, is created again if it was never in use, or names the missing file.
func TestEverySetOfFiles(t *testing.T) {
	unused := openAuthority(t, filepath.Join(t.TempDir(), "trust"), nil)
	used, _, _ := newAuthority(t)
	makeToken(t, used, TokenSpec{Role: RoleViewer})
	files := []string{caKeyFile, keyringFile, tokensFile, nodesFile, caCertFile, nodeKeyFile, nodeCertFile}
	for set := range 1 << len(files) {
		in := func(name string) bool {
			for i, f := range files {
				if f == name {
					return set&(1<<i) != 0
				}
			}
			return false
		}
		complete := in(caKeyFile) && in(keyringFile) && in(tokensFile) && in(nodesFile) && in(caCertFile)
		a, err := OpenAuthority(keepFiles(t, unused.dir, in), nil)
		switch {
		case complete && (err != nil || a.Pin() != unused.Pin()):
			t.Errorf("unused, all files: got %v, want the same CA", err)
		case in(caCertFile) && !complete && err == nil:
			t.Errorf("unused, set %07b: got an authority, want to be told what is missing", set)
		case !in(caCertFile) && (err != nil || a.Pin() == unused.Pin()):
			t.Errorf("unused, set %07b: got %v, want a new CA", set, err)
		}
		dir := keepFiles(t, used.dir, in)
		b, err := OpenAuthority(dir, nil)
		wasUsed := in(tokensFile) || in(nodesFile) || in(nodeCertFile)
		switch {
		case complete && (err != nil || b.Pin() != used.Pin()):
			t.Errorf("used, all files: got %v, want the same CA", err)
		case !complete && (in(caCertFile) || wasUsed):
			wantText(t, fmt.Sprintf("used, set %07b", set), err, " is missing")
		case !complete && err != nil:
			t.Errorf("used, but nothing shows it, set %07b: got %v, want a new CA", set, err)
		}
	}
}

// TestCutFiles truncates files at every byte, as a failing disk does. The error names the file; it
// is never treated as empty.
func TestCutFiles(t *testing.T) {
	a, _, _ := newAuthority(t)
	makeToken(t, a, TokenSpec{Role: RoleViewer})
	_, worker := mustJoin(t, a, "w1")
	master := func(dir string) error { _, err := OpenAuthority(dir, nil); return err }
	node := func(dir string) error { _, err := LoadIdentity(dir); return err }
	ring := func(dir string) error { _, err := LoadKeyring(dir); return err }
	for _, c := range []struct {
		from, name string
		open       func(string) error
	}{
		{a.dir, caCertFile, master}, {a.dir, caKeyFile, master}, {a.dir, tokensFile, master},
		{a.dir, nodesFile, master},
		{a.dir, keyringFile, master}, {worker, nodeCertFile, node}, {worker, nodeKeyFile, node},
		{worker, caCertFile, node},
		{worker, keyringFile, ring},
	} {
		dir := keepFiles(t, c.from, func(string) bool { return true })
		path := filepath.Join(dir, c.name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) - 1 { // the last byte is a newline
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			wantText(t, fmt.Sprintf("%s cut at %d of %d", c.name, n, len(whole)), c.open(dir), path+" is damaged")
		}
	}
}

// TestHalfWrittenFiles checks that a file that was incomplete when the process was killed is
// ignored and removed.
func TestHalfWrittenFiles(t *testing.T) {
	a, _, _ := newAuthority(t)
	part := filepath.Join(a.dir, durable.PartPrefix+tokensFile+"-123")
	if err := os.WriteFile(part, []byte(`{"version":1,"entr`), 0o600); err != nil {
		t.Fatal(err)
	}
	if b := openAuthority(t, a.dir, nil); b.Pin() != a.Pin() || !missing(part) {
		t.Errorf("got another CA, or a half-written file that stays")
	}
}

func TestForeignForms(t *testing.T) {
	a, _, _ := newAuthority(t)
	for _, name := range []string{tokensFile, nodesFile, keyringFile} {
		dir := keepFiles(t, a.dir, func(string) bool { return true })
		if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"version": 2, "later": true}`), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenAuthority(dir, nil)
		wantText(t, name, err, "was written by a newer mlfnode")
	}
	dir := keepFiles(t, a.dir, func(name string) bool { return name != caKeyFile })
	other, _, _ := newAuthority(t)
	b, err := os.ReadFile(filepath.Join(other.dir, caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, caKeyFile), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenAuthority(dir, nil)
	wantText(t, "another cluster's key", err, "don't belong together")
}

// TestRefusedWrite checks that a change has no effect if the disk rejects it.
func TestRefusedWrite(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleViewer})
	id, _ := mustJoin(t, a, "w1")
	away := a.dir + "-away"
	if err := os.Rename(a.dir, away); err != nil {
		t.Fatal(err)
	}
	if _, err := a.MakeToken(TokenSpec{Role: RoleViewer}); err == nil || len(a.Tokens()) != 3 {
		t.Errorf("got %d tokens, %v, want the 3 from before and an error", len(a.Tokens()), err)
	}
	keys := len(a.Keyring().Keys())
	for what, err := range map[string]error{
		"revoke": a.Revoke(token.ID), "forget": a.Forget("w1"), "drain": storeData(a, "w1", `{"on":true}`),
		"install": a.Keyring().Install(NewGossipKey()),
	} {
		if err == nil {
			t.Errorf("%s: got no error from a folder that is gone", what)
		}
	}
	if _, err := a.CheckAccess(token.Bearer()); err != nil || a.Known("w1", id.Leaf()) != nil ||
		a.NodeData("w1") != nil ||
		len(a.Keyring().Keys()) != keys {
		t.Errorf("got a change that was not stored: %v", err)
	}
	if err := os.Rename(away, a.dir); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "revoke", a.Revoke(token.ID), nil)
}

// folderEnv turns the test binary into a master that makes tokens and lets machines join until it
// is killed.
const folderEnv = "MLF_TEST_TRUST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(folderEnv); dir != "" {
		fmt.Println("stopped:", work(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// work prints each promise on a line of its own: the pin, tokens, and nodes, whose identities are
// in the folders of their names.
func work(dir string) error {
	a, err := OpenAuthority(filepath.Join(dir, "master"), nil)
	if err != nil {
		return err
	}
	fmt.Println("pin", a.Pin())
	if _, err := a.IssueSelf("master"); err != nil {
		return err
	}
	for {
		t, err := a.MakeToken(TokenSpec{Role: RoleNode, Uses: 1})
		if err != nil {
			return err
		}
		fmt.Println("token", t.Text())
		node := "n" + t.ID
		if _, _, err := join(a, filepath.Join(dir, node), t, grid.NodeID(node)); err != nil {
			return err
		}
		fmt.Println("node", node)
	}
}

// TestKilledMaster checks that a master that is killed at any moment, even while it creates its CA,
// keeps every promise that it made.
func TestKilledMaster(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(7, 7))
	pin, tokens, nodes := "", []string{}, []string{}
	// On a busy machine less happens before each kill.
	for round := 0; round < 15 || len(nodes) < 3 && round < 100; round++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), folderEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(5+r.IntN(150)+10*round)*time.Millisecond, func() { cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			switch f := strings.Fields(lines.Text()); {
			case f[0] == "pin" && pin != "" && pin != f[1]:
				t.Fatalf("round %d: the CA is another one", round)
			case f[0] == "pin":
				pin = f[1]
			case f[0] == "token" && len(f) == 2:
				tokens = append(tokens, f[1])
			case f[0] == "node" && len(f) == 2:
				nodes = append(nodes, f[1])
			case f[0] == "stopped:":
				t.Fatalf("round %d: %s", round, lines.Text())
			}
		}
		cmd.Wait() // it was killed
	}
	if len(nodes) < 3 {
		t.Fatalf("got %d nodes, want some to look at", len(nodes))
	}
	checkPromises(t, dir, tokens, nodes)
}

func checkPromises(t *testing.T, dir string, tokens []string, nodes []string) {
	t.Helper()
	a := openAuthority(t, filepath.Join(dir, "master"), nil)
	known := map[string]bool{}
	for _, info := range a.Tokens() {
		known[info.ID] = true
	}
	for _, text := range tokens {
		if token, err := ParseToken(text); err != nil || !known[token.ID] || token.Pin != a.Pin() {
			t.Errorf("token %v, %v is lost", token, err)
		}
	}
	for _, node := range nodes {
		id, err := LoadIdentity(filepath.Join(dir, node))
		if err != nil || string(id.Node) != node || a.Known(id.Node, id.Leaf()) != nil {
			t.Errorf("node %s is lost: %v", node, err)
		}
		if _, err := LoadKeyring(filepath.Join(dir, node)); err != nil {
			t.Errorf("node %s: %v", node, err)
		}
	}
}
