package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
	"mlfnode/projects"
)

func upCommand(a *app) *cobra.Command {
	r := &clusterFlags{letters: map[string]*string{}}
	c := &cobra.Command{
		Use: "up", Short: "Bring up a whole cluster over ssh", Args: noArgument,
		Long: `up turns machines that you can reach by ssh into a cluster: it checks that they are suitable,
installs mlfnode there, starts a master and workers as services, and waits until they are ready.
Nothing needs to be installed there first, and you need not be root.

What is already there is left alone, so run it again after a problem: it does only what is missing.
The cluster is written to cluster.yaml, which -f and the other commands read. Flags given together
with -f override the file. With -f, machines that were brought up before and are no longer in the
file are stopped, and their trials go to the others. A change of roles that the machines can't make
is refused before anything is changed; --dry-run shows what would be done, and fails where up would
refuse.`,
		Example: `  mlfnode up -a hostA,hostB,hostC -r ML -d chainer -m 1 -w 2,3
  mlfnode up -a ada@hostA,hostB:2222 -i ~/.ssh/id_ed25519 -m local -w local,1,2
  mlfnode up -a hostD -w 1 -b hostA     attach a worker to a running master
  mlfnode up -f`,
		RunE: func(c *cobra.Command, _ []string) error { return bringUp(a, c, r) },
	}
	r.add(a.console, c)
	for _, l := range []struct{ letter, name, text string }{
		{"a", "hosts", "other machines, `[USER@]HOST[:PORT],…`; the first has number 1"},
		{"i", "key", "private key for ssh, a `FILE` (default: the keys that ssh would use)"},
		{"r", "root", "`FOLDER` on each machine, below the home folder (default mlfnode)"},
		{"d", "project", "`PROJECT` whose files are copied to each machine, see push"},
		{"m", "master-host", "the master: `N`, the number of a host of -a, or local for this machine"},
		{"w", "workers", "the workers: `N,…`, numbers of hosts of -a, local, or both, as in local,1,2"},
		{"b", "attach", "attach the workers to this running master, `HOST` or HOST:PORT"},
	} {
		r.letters[l.letter] = c.Flags().StringP(l.name, l.letter, "", l.text)
	}
	c.Flags().BoolVar(&r.dryRun, "dry-run", false, "check the machines and say what would be done")
	c.Flags().BoolVar(&r.take, "take", false, "take machines from another cluster; its trials there end")
	c.Flags().StringVar(&r.tokenFile, "token-file",
		"", "with -b: file with the token of that master; - is standard input")
	return c
}

// changedFlags are the flags on the command line.
func (r *clusterFlags) changedFlags(c *cobra.Command) (l bootstrap.Flags, any bool) {
	to := map[string]**string{"a": &l.Hosts, "i": &l.Key, "r": &l.Root, "d": &l.Project, "m": &l.Master,
		"w": &l.Workers,
		"b": &l.Attach}
	for letter, value := range r.letters {
		if c.Flags().ShorthandLookup(letter).Changed {
			*to[letter], any = value, true
		}
	}
	return l, any
}

// desired returns the cluster that up is to bring up: that of the file, of the flags, or of both.
func (r *clusterFlags) desired(c *cobra.Command) (*bootstrap.Cluster, bool, error) {
	letters, any := r.changedFlags(c)
	cluster := &bootstrap.Cluster{}
	switch {
	case r.file != "":
		var err error
		if cluster, err = r.load(); err != nil {
			return nil, false, err
		}
	case !any:
		return nil, false, usage("up needs to know which machines to use",
			"mlfnode up -a HOST,HOST -m 1 -w 2, or mlfnode up -f for the cluster in cluster.yaml")
	default:
		r.file = bootstrap.DefaultFile
	}
	if err := explainCluster(letters.Apply(cluster)); err != nil {
		return nil, false, err
	}
	return cluster, any, explainCluster(cluster.Validate())
}

func bringUp(a *app, c *cobra.Command, r *clusterFlags) error {
	began := time.Now()
	again := r.file != ""
	cluster, changed, err := r.desired(c)
	if err != nil {
		return err
	}
	o, done, err := sshOptions(a.console, r, cluster)
	if err != nil {
		return err
	}
	defer done()
	release, err := completeOptions(a, &o, r, again)
	if err != nil {
		return err
	}
	defer release()
	if changed && !r.dryRun {
		// Save the file before anything is started, so that down finds it however up ends.
		if err := r.saveCluster(a.console, cluster); err != nil {
			return err
		}
	}
	return reportOutcomes(c.Context(), a.console, bootstrap.Up(c.Context(), o), began, false)
}

// completeOptions sets the options of Up that concern more than the machines. again means that Up
// may have applied the file before.
func completeOptions(a *app, o *bootstrap.Options, r *clusterFlags, again bool) (release func(), err error) {
	if again {
		if o.Applied, err = bootstrap.LoadApplied(r.file); err != nil {
			return nil, err
		}
	}
	if o.Files, err = projectFiles(a, o.Cluster.Project); err != nil {
		return nil, err
	}
	o.TakeOver, o.SaveApplied = r.take, func(c *bootstrap.Cluster) error { return bootstrap.SaveApplied(r.file, c) }
	o.SetUpAccess = func(ctx context.Context, addresses []string, makeToken func() (string, error)) string {
		return setUpAccess(ctx, a.console, addresses, makeToken)
	}
	o.Token = func(ctx context.Context) (string, error) {
		t, err := readToken(ctx, a.console, r.tokenFile)
		return t.Text(), err
	}
	return func() {
		if o.Files != nil {
			o.Files.Close()
		}
	}, nil
}

// saveCluster writes the file and renames one that describes another cluster.
func (r *clusterFlags) saveCluster(ui *console, cluster *bootstrap.Cluster) error {
	old, err := os.ReadFile(r.file)
	if err := bootstrap.Save(r.file, cluster); err != nil {
		return err
	}
	now, again := os.ReadFile(r.file)
	if err != nil || again != nil || string(old) == string(now) {
		return nil
	}
	if err := os.WriteFile(r.file+".old", old, 0o644); err != nil {
		return fmt.Errorf("keep the previous cluster: %w", err)
	}
	ui.say("the previous %s is now %[1]s.old%s", r.file, hintStopRemoved(r.file+".old", cluster))
	return nil
}

// hintStopRemoved says how to stop what still runs on the machines of the old cluster: on all of
// them, or on those that the new one does not have.
func hintStopRemoved(file string, now *bootstrap.Cluster) string {
	old, err := bootstrap.Load(file)
	if err != nil {
		return "" // it could not be used either
	}
	var gone []string
	for _, h := range now.MissingFrom(old) {
		gone = append(gone, h.Address)
	}
	switch len(gone) {
	case 0:
		return ""
	case len(old.Hosts):
		return "; stop what runs on its hosts with: mlfnode down -f " + file
	}
	return fmt.Sprintf("; the new one does not have %s; stop what runs there with: mlfnode down %s -f %s",
		strings.Join(gone, ", "), strings.Join(gone, " "), file)
}

// projectFiles copies what a bundle of the project would contain; it returns nil if project is
// empty.
func projectFiles(a *app, project string) (*bootstrap.Files, error) {
	if project == "" {
		return nil, nil
	}
	p, err := findProject(a, []string{project}, nil)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "mlfnode-push-")
	if err != nil {
		return nil, fmt.Errorf("copy the project: %w", err)
	}
	files, err := repack(p, dir)
	if err != nil {
		_ = os.RemoveAll(dir) // err says what went wrong
	}
	return files, err
}

func repack(p *projects.Project, dir string) (*bootstrap.Files, error) {
	pack, err := os.CreateTemp("", "mlfnode-push-*")
	if err != nil {
		return nil, fmt.Errorf("pack the project: %w", err)
	}
	defer os.Remove(pack.Name())
	defer pack.Close()
	if _, err := projects.Pack(p.Dir, pack, projects.DefaultBundleLimit); err != nil {
		return nil, err
	}
	if _, err := pack.Seek(0, 0); err != nil {
		return nil, err
	}
	if _, err := projects.Unpack(pack, dir); err != nil {
		return nil, err
	}
	// The owner must be able to remove what is in the folders.
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
	if err != nil {
		return nil, err
	}
	return bootstrap.ReadFiles(p.Name, dir)
}
