package trust

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

func newContext(t testing.TB) (Context, *Authority, *Identity) {
	t.Helper()
	a, master, _ := newAuthority(t)
	token, err := a.MakeToken(TokenSpec{Role: RoleOperator})
	if err != nil {
		t.Fatal(err)
	}
	c := Context{Master: []string{"10.0.0.1:7420", "[fd00::1]:7420"}, Token: token.Bearer(), Role: RoleOperator,
		Node: "w1"}
	c.SetAuthorities(a.CAs())
	return c, a, master
}

func TestContext(t *testing.T) {
	want, a, master := newContext(t)
	path := filepath.Join(t.TempDir(), "config", "mlfnode", "context.yaml")
	_, err := LoadContext(path)
	wantErr(t, "no file", err, ErrNoContext)
	for range 2 {
		wantErr(t, "save", SaveContext(path, want), nil)
		got, err := LoadContext(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("context (-want +got):\n%s", d)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	cas, err := want.Authorities()
	if err != nil {
		t.Fatal(err)
	}
	cfg := cas.Client(nil)
	s, c := meet(t, master.APIServer(a.Known), cfg)
	wantTalk(t, "with the context", s, c)
	_, stranger, _ := newAuthority(t)
	s, c = meet(t, stranger.APIServer(nil), cfg)
	wantSilence(t, "another cluster", s, c)
}

func TestExposedContext(t *testing.T) {
	c, _, _ := newContext(t)
	path := filepath.Join(t.TempDir(), "context.yaml")
	wantErr(t, "save", SaveContext(path, c), nil)
	for _, mode := range []os.FileMode{0o644, 0o640, 0o606, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadContext(path)
		wantText(t, mode.String(), err, "run: chmod 600 "+path)
	}
	c.Token = "" // there is nothing to hide
	wantErr(t, "save", SaveContext(path, c), nil)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadContext(path)
	wantErr(t, "without a token", err, nil)
}

func TestContextRefusals(t *testing.T) {
	good, _, _ := newContext(t)
	path := filepath.Join(t.TempDir(), "context.yaml")
	wantErr(t, "save", SaveContext(path, good), nil)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	secret := good.Token[11:]
	for in, want := range map[string]string{
		"":                            "it is empty",
		text + "masters: [x]\n":       "the field masters not found",
		text + "---\nmaster: [x:1]\n": "a second document",
		text + "\t:":                  "is not valid YAML",
		"master: {" + secret + ": 1}": "line 1 does not fit a context",
		"token: [" + secret + "]":     "line 1 does not fit a context",
		"master: *x":                  "is not valid YAML",
		"role: operator":              "master names no address",
		strings.Replace(text, "role: operator", "role: node", 1):      "role is \"node\"",
		strings.Replace(text, "node: w1", "node: a.b", 1):             "is not a valid node name",
		strings.Replace(text, "10.0.0.1:7420", "https://10.0.0.1", 1): "is not HOST:PORT",
		strings.Replace(text, "token: ", "token: x", 1):               "token is not <id>.<secret>",
		strings.Replace(text, "CERTIFICATE", "PRIVATE KEY", 2):        "ca is not a CA certificate",
		strings.Replace(text, "\n", "\n\x00", 1):                      "is not valid YAML",
		strings.Repeat("#\n", largestContext):                         "too large",
	} {
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadContext(path)
		wantText(t, fmt.Sprintf("%.30q", in), err, want)
		if err != nil && strings.Contains(err.Error(), secret[:6]) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
	if err := SaveContext(path, Context{}); err == nil {
		t.Error("got an empty context saved")
	}
	_, err = LoadContext(t.TempDir())
	wantText(t, "a folder", err, "is not a regular file")
}

// TestCutContext truncates a context at every byte. The result is rejected, or it lacks only its
// last lines, which have defaults or are reported as missing.
func TestCutContext(t *testing.T) {
	good, _, _ := newContext(t)
	path := filepath.Join(t.TempDir(), "context.yaml")
	wantErr(t, "save", SaveContext(path, good), nil)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if c, err := parseContext(b[:n]); err == nil &&
			(strings.TrimSpace(c.CA) != strings.TrimSpace(good.CA) || (c.Token != "" && c.Token != good.Token)) {
			t.Errorf("cut at %d: got a context with a CA or a token that is not whole", n)
		}
	}
}

func FuzzParseContext(f *testing.F) {
	c, _, _ := newContext(f)
	path := filepath.Join(f.TempDir(), "seed.yaml")
	if err := SaveContext(path, c); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(seed), "", "master: [a:1]", "a: &a [*a]", "token: !!binary x", "- 1",
		"master:\n<<: {ca: x}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseContext(b)
		if err != nil {
			return
		}
		text, err := yaml.Marshal(got)
		if err != nil {
			t.Fatalf("a context that was loaded can't be saved: %v", err)
		}
		again, err := parseContext(text)
		if d := cmp.Diff(got, again); err != nil || d != "" {
			t.Errorf("got %v, and after a round (-want +got):\n%s", err, d)
		}
	})
}
