package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"mlfnode/grid"
	classifier "mlfnode/node/failure"
)

// readRules reads the rules of a folder; nil where there are none.
func readRules(dir string) ([]classifier.Source, error) {
	files, err := classifier.ReadFile(dir)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", filepath.Join(dir, classifier.FileName), bare(err))
	}
	return files, nil
}

// checkRules says what is wrong with a project's rules before a sweep goes by them.
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

// classified is what doctor --classify says.
type classified struct {
	Class grid.Class `json:"class"`
	Rule  string     `json:"rule,omitempty"`
	Line  string     `json:"line,omitempty"`
	Cause string     `json:"cause,omitempty"`
	Hint  string     `json:"hint,omitempty"`
}

// classifyOutput says which failure class the output of a program has, by the rules of the current folder, of this node and of mlfnode itself.
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
		fmt.Fprintf(a.stdout, "class %s: no rule knows this output\n", v.Class)
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

// maxPipe bounds what is read of the standard input.
const maxPipe = 64 << 20

// lastOutput reads the end of a file, or of the standard input for "-".
func lastOutput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, maxPipe))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w\n  try: the path of a file with a program's output", name, bare(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > classifier.MaxOutput {
		if _, err := f.Seek(-classifier.MaxOutput, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPipe))
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", name, bare(err))
	}
	return text, nil
}
