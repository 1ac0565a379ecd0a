package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/node/api"
	classifier "mlfnode/node/failure"
)

// printFailureGroups prints how many trials of a sweep failed in which class, with a hint and an
// example. If all failures are the program's own and few enough to be listed, it prints nothing.
func printFailureGroups(ctx context.Context, ui *console, c *api.Client, v *api.Sweep) error {
	if v.Failed == 0 {
		return nil
	}
	all, err := failureGroupsOf(ctx, c, v.Sweep)
	if err != nil {
		return err
	}
	plain := func(g api.FailureGroup) bool { return g.Class == grid.ClassExit || g.Class == grid.ClassSignal }
	if v.Failed <= reasonsShown && !slices.ContainsFunc(all.Groups,
		func(g api.FailureGroup) bool { return !plain(g) }) {
		return nil
	}
	for _, g := range all.Groups {
		ui.say("%d × %s (%s), as %s; list them with: mlfnode trials %s --class %s", g.Count, g.Class, g.Cause, g.Trial,
			v.Sweep, g.Class)
		if g.Hint != "" {
			ui.say("  %s", sanitize([]byte(g.Hint)))
		}
	}
	if all.More {
		ui.say("(of the first %d failed trials)", all.Counted)
	}
	return nil
}

// failureGroupsOf asks for the failures of a sweep. It returns none if the node is of an older
// version, or if the sweep was just removed.
func failureGroupsOf(ctx context.Context, c *api.Client, id grid.SweepID) (api.Failures, error) {
	all, err := c.Trials().Failures(ctx, id)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return api.Failures{}, nil
	}
	return all, err
}

// checkClass refuses a name that is not a failure class.
func checkClass(name string) error {
	var known []string
	for _, f := range grid.Failures() {
		if string(f.Class) == name {
			return nil
		}
		known = append(known, string(f.Class))
	}
	slices.Sort(known)
	return usage(fmt.Sprintf("%q is not a failure class", name), strings.Join(known, ", "))
}

// readRules reads the rules in a folder; it returns nil if there are none.
func readRules(dir string) ([]classifier.Source, error) {
	files, err := classifier.ReadFile(dir)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", filepath.Join(dir, classifier.FileName),
			problem.WithoutPath(err))
	}
	return files, nil
}

// checkRules reports what is wrong with the rules of a project before a sweep uses them.
func checkRules(dir string) error {
	files, err := readRules(dir)
	if err != nil || files == nil {
		return err
	}
	if _, err := classifier.NewRules(files...); err != nil {
		return asUsage(err)
	}
	return nil
}

// classified is what doctor --classify prints.
type classified struct {
	Class grid.Class `json:"class"`
	Rule  string     `json:"rule,omitempty"`
	Line  string     `json:"line,omitempty"`
	Cause string     `json:"cause,omitempty"`
	Hint  string     `json:"hint,omitempty"`
}

// classifyOutput prints the failure class of a program's output, by the rules of the current
// folder, of this node and of mlfnode itself.
func classifyOutput(a *app, name string, code int) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	var files []classifier.Source
	for _, dir := range []string{".", cfg.StateDir} {
		found, err := readRules(dir)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	rules, err := classifier.NewRules(files...)
	if err != nil {
		return asUsage(err)
	}
	output, err := lastOutput(name)
	if err != nil {
		return err
	}
	e := classifier.Evidence{Class: grid.ClassExit, ExitCode: code, Stderr: output}
	if code > 128 && code <= 128+64 {
		e.Class = grid.ClassSignal
	}
	found := rules.Classify(&e)
	f := grid.FailureOf(found.Class)
	v := classified{Class: found.Class, Rule: found.Rule, Line: found.Line, Cause: f.Cause, Hint: found.Hint}
	if v.Hint == "" {
		v.Hint = f.Hint
	}
	if a.json {
		return a.printJSON(v)
	}
	if v.Rule == "" {
		fmt.Fprintf(a.stdout, "class %s: no rule matches this output\n", v.Class)
		return nil
	}
	fmt.Fprintf(a.stdout, "class %s: %s (rule %s)\n", v.Class, v.Cause, v.Rule)
	for _, text := range []string{v.Line, v.Hint} {
		if text != "" {
			fmt.Fprintf(a.stdout, "  %s\n", sanitize([]byte(text)))
		}
	}
	return nil
}

// maxPipe bounds what is read from standard input.
const maxPipe = 64 << 20

// lastOutput reads the end of a file, or standard input for "-".
func lastOutput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, maxPipe))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w\n  try: the path of a file with a program's output", name,
			problem.WithoutPath(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > classifier.MaxOutput {
		if _, err := f.Seek(-classifier.MaxOutput, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPipe))
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", name, problem.WithoutPath(err))
	}
	return text, nil
}
