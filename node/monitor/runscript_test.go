package monitor

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// TestByHand requests the script of a trial and runs it: the program gets the same arguments and
// variables. The script contains nothing that may be a secret, and asks for the variables that it
// lacks for that reason.
func TestByHand(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	b := newSweepBench(t)
	points, err := space.New([]space.Axis{{Key: "name",
		Values: []space.Value{{Text: "plain", Kind: space.Text},
			{Text: "it's $HOME; \"x\" é", Kind: space.Text}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := b.cfg.Master.Submit(t.Context(), &api.Submit{
		Project: "p", Space: points,
		Environ:      []string{"PATH=/usr/bin:/bin", "SHELL_TOKEN=" + secret, "PLAIN=" + secret},
		EnvironAdded: []string{"ADDED=" + secret, "THREADS=" + secret, "X}$(touch broken)=1"},
		Task: grid.Task{
			Name: "t", Command: []string{"sh", "-c",
				`printf '%s|' "$1" "$THREADS" "$DOLLAR" "$MLF_TRIAL" "$MLF_PARAMS" "$ADDED"; test -d "$MLF_OUT" && echo done >"$MLF_METRICS"; cat "$MLF_METRICS"`,
				"run"},
			Env: map[string]string{"THREADS": "4", "DOLLAR": "$$d/x 'y'", "WANDB_API_KEY": secret,
				"URL": "http://u:" + secret + "@host/", "FROM": "$PLAIN"},
			Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := api.Prefix + "/sweeps/" + string(rec.Sweep.ID) + "/trials/1/command"
	viewer, err := b.cfg.Cluster.Authority.MakeToken(trust.TokenSpec{Role: trust.RoleViewer})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := b.ask(t, path, viewer.Bearer()); status != http.StatusForbidden ||
		!strings.Contains(text, "--role operator") {
		t.Errorf("a viewer got status %d: %s", status, text)
	}
	status, text := b.ask(t, path, b.token)
	var v api.ByHand
	if err := json.Unmarshal([]byte(text), &v); status != http.StatusOK || err != nil {
		t.Fatalf("got status %d, %v: %s", status, err, text)
	}
	if strings.Contains(text, secret) {
		t.Errorf("a secret is shown: %s", text)
	}
	if got, want := strings.Join(v.Hidden, " "), "ADDED FROM THREADS URL WANDB_API_KEY"; got != want {
		t.Errorf("hidden are %q, want %q", got, want)
	}
	run := func(env ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", v.Script)
		cmd.Dir, cmd.Env = t.TempDir(), append([]string{"PATH=/usr/bin:/bin", "TMPDIR=" + t.TempDir()}, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err == nil || !strings.Contains(out, "ADDED: export it as it was") {
		t.Errorf("without what is hidden: got %v, %s", err, out)
	}
	out, err := run("ADDED=a", "THREADS=8", "WANDB_API_KEY=k", "URL=u", "FROM=f")
	want := "--name=it's $HOME; \"x\" é|8|$d/x 'y'|" + v.Trial + `|{"name":"it's $HOME; \"x\" é"}|a|done` + "\n"
	if err != nil || out != want {
		t.Errorf("by hand it printed %q, %v, want %q\n%s", out, err, want, v.Script)
	}
}
