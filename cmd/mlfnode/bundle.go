package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node/api"
	"mlfnode/projects"
)

// bundle is a packed project in a temporary file; it is empty without a digest.
type bundle struct {
	digest   string
	file     *os.File
	progress io.Writer // where the progress of an upload is shown
}

func (b *bundle) upload(ctx context.Context, c *api.Client) error {
	total, err := b.file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = b.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("read packed project: %w", err)
	}
	s := &uploadProgress{r: b.file, w: b.progress, terminal: isTerminal(b.progress), total: total, now: time.Now}
	defer s.clear()
	return c.Bundles().Put(ctx, b.digest, s)
}

func (b *bundle) remove() {
	if b.file != nil {
		b.file.Close()
		os.Remove(b.file.Name())
	}
}

// packFailed reports an error of the temporary file, not of the project.
func packFailed(err error) error {
	return failed(fmt.Sprintf("the project can't be packed: %v", problem.WithoutPath(err)),
		fmt.Sprintf("make room in %s, or set TMPDIR to another folder", os.TempDir()))
}

// withBundle uploads the bundle if the node does not have it, then makes the request that names it,
// possibly twice.
func withBundle[T any](
	ctx context.Context, c *api.Client, b *bundle, request func(context.Context) (T, error),
) (done T, err error) {
	if b.digest == "" {
		return uninterrupted(ctx, request)
	}
	known, err := c.Bundles().Has(ctx, b.digest)
	if err == nil && !known {
		err = b.upload(ctx, c)
	}
	if err != nil {
		return done, err
	}
	done, err = uninterrupted(ctx, request)
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) && refusal.Code == api.CodeNoBundle {
		// It was removed with the last sweep that used it, a moment ago.
		if err := b.upload(ctx, c); err != nil {
			return done, err
		}
		done, err = uninterrupted(ctx, request)
	}
	return done, err
}

// listFiles lists the files of the sweep's bundle. What mlfnode itself keeps is never among them,
// wherever it is.
func listFiles(a *app, p *plan, include []string) error {
	if !p.project.Bundled {
		return nil
	}
	d, err := a.destination()
	if err != nil {
		return err
	}
	p.files, err = projects.List(p.project.Dir, projects.ListOptions{
		Except: []string{d.cfg.StateDir}, Include: include, Share: p.task.Share, Lenient: p.project.Lenient,
		Setup: len(p.task.Setup) > 0, Cluster: !d.alone(),
	})
	if err == nil {
		err = p.files.CheckSize(projects.DefaultBundleLimit)
	}
	if err != nil {
		return asUsage(err)
	}
	p.task.Links = p.files.Links
	for _, input := range p.task.Inputs {
		name := strings.TrimPrefix(input, "/")
		if strings.Contains(input, "/") && !strings.ContainsAny(name, "*?[\\") && !p.files.Has(name) {
			return usage(fmt.Sprintf("the setup step reads %s, which does not travel to the trials", name),
				"check the name, and the ignore files")
		}
	}
	return nil
}

// packBundle packs the files and prints what it packed, unless quiet.
func packBundle(ctx context.Context, ui *console, p *plan, quiet bool) (*bundle, error) {
	b := &bundle{progress: ui.stderr}
	if quiet {
		b.progress = io.Discard
	}
	if p.files.Empty() {
		if !quiet {
			printPacked(ui, p)
		}
		return b, nil
	}
	f, err := os.CreateTemp("", "mlfnode-bundle-*")
	if err != nil {
		return nil, packFailed(err)
	}
	b.file = f
	if !quiet {
		notice := time.AfterFunc(uploadNoticeAfter, func() {
			ui.say("packing the files, %s", humanize.Bytes(uint64(p.files.Bytes)))
		})
		defer notice.Stop()
	}
	if b.digest, err = p.files.Pack(interruptible{ctx, f}, projects.DefaultBundleLimit); err != nil {
		b.remove()
		if errors.Is(err, syscall.ENOSPC) {
			return nil, packFailed(syscall.ENOSPC)
		}
		return nil, asUsage(err)
	}
	if !quiet {
		printPacked(ui, p)
	}
	return b, nil
}

// leftShown is how many of the files and folders that are left out are named.
const leftShown = 4

// printPacked prints what the bundle holds and what is left out.
func printPacked(ui *console, p *plan) {
	if p.project.Note != "" {
		ui.say("note: %s", p.project.Note)
	}
	if p.files == nil {
		return
	}
	if line := packedLine(p.files); line != "" {
		ui.say("%s", sanitize([]byte(line)))
	}
	for _, note := range p.files.Notes {
		ui.say("note: %s", note)
	}
}

// packedFiles describes the bundle for `sweep --dry-run --json`.
type packedFiles struct {
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`
	LeftOut []leftOut `json:"left_out"`
	Notes   []string  `json:"notes,omitempty"`
}

// leftOut is a file or folder that is not in the bundle. Its size is a lower bound.
type leftOut struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Why   string `json:"why"`
}

// packedOf returns nil if no folder is packed.
func packedOf(f *projects.Files) *packedFiles {
	if f == nil {
		return nil
	}
	p := &packedFiles{Files: f.Count, Bytes: f.Bytes, LeftOut: make([]leftOut, 0, len(f.Left)), Notes: f.Notes}
	for _, l := range f.Left {
		p.LeftOut = append(p.LeftOut, leftOut{Name: l.Name, Bytes: l.Bytes, Why: l.Why})
	}
	return p
}

// packedLine describes what was packed; it is empty if there is nothing to say.
func packedLine(f *projects.Files) string {
	left := slices.DeleteFunc(slices.Clone(f.Left), func(l projects.Left) bool {
		return l.Why == projects.ByDefault && path.Base(l.Name) != ".git" // Python makes it again
	})
	if f.Empty() && len(left) == 0 {
		return ""
	}
	line := fmt.Sprintf("packed %s, %s", plural(int64(f.Count), "file"), humanize.Bytes(uint64(f.Bytes)))
	if len(left) == 0 {
		return line
	}
	slices.SortStableFunc(left, func(a, b projects.Left) int { return cmp.Compare(b.Bytes, a.Bytes) })
	var named []string
	for _, l := range left[:min(leftShown, len(left))] {
		size := ""
		if strings.HasSuffix(l.Name, "/") || l.Bytes > 0 {
			size = " " + humanize.Bytes(uint64(l.Bytes))
		}
		if l.More {
			size = " over" + size
		}
		named = append(named, fmt.Sprintf("%s%s (%s)", l.Name, size, l.Why))
	}
	line += "; left out: " + strings.Join(named, ", ")
	if more := len(left) - leftShown; more > 0 {
		line += fmt.Sprintf(", and %d more", more)
	}
	return line
}

// checkTravels refuses a program that is in the project's folder but not in the bundle.
func (p *plan) checkTravels(name string) error {
	if p.files == nil || p.files.Has(name) {
		return nil
	}
	left := p.files.LeftOut(name)
	if left == nil {
		return nil
	}
	why := left.Why
	if left.Rule != "" {
		why = fmt.Sprintf("%s names it, with %s", left.Why, left.Rule)
	}
	hint := fmt.Sprintf("add `include: [%q]` to the task in project.yaml, or have its setup step make it", left.Name)
	if !p.project.File() {
		hint = fmt.Sprintf("give its absolute path if each node has it, or write a project.yaml (mlfnode new) "+
			"whose task has `include: [%q]`", left.Name)
	}
	return usage(fmt.Sprintf("%s is here, but does not travel to the trials: %s", name, why), hint)
}

// noteLeftOut prints a note if the reason of a failure mentions a file that was left out.
func noteLeftOut(ctx context.Context, ui *console, c *api.Client, v *api.Sweep, f *projects.Files) error {
	if f == nil || len(f.Left) == 0 {
		return nil
	}
	for t, err := range c.Trials().List(ctx, v.Sweep,
		api.TrialQuery{States: []grid.State{grid.Failed}, Limit: reasonsShown}) {
		if err != nil {
			return err
		}
		for _, l := range f.Left {
			if l.Why != projects.ByDefault && mentions(t.Reason, l.Name) {
				ui.say("note: %s was left out (%s), which may be why; `include` in project.yaml overrides ignore files",
					l.Name,
					l.Why)
				return nil
			}
		}
	}
	return nil
}

// mentions reports whether a text mentions a file or something in a folder, as a path or as a
// Python module.
func mentions(text, file string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	module := strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(file, "/"), ".py"), "/", ".")
	for _, name := range []string{file, strings.TrimSuffix(file, "/"), module} {
		for rest := text; ; {
			before, after, found := strings.Cut(rest, name)
			if !found {
				break
			}
			before = strings.TrimSuffix(before, "./")
			begins := before == "" || !strings.Contains(letters+"/", before[len(before)-1:])
			ends := strings.HasSuffix(name, "/") || after == "" || !strings.Contains(letters, after[:1])
			if begins && ends { // not a part of a longer name
				return true
			}
			rest = after
		}
	}
	return false
}
