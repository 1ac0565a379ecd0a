package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mlfnode/grid/printable"
	"mlfnode/grid/problem"
)

// console is where a command prints its results and messages, and how.
type console struct {
	stdout  *screen
	stderr  io.Writer
	json    bool // results are printed as JSON
	noColor bool
}

func newConsole(stdout, stderr io.Writer) *console {
	return &console{stdout: &screen{w: stdout}, stderr: stderr}
}

// screen is where results are printed. It knows how much was written, and the last error.
type screen struct {
	w       io.Writer
	written int64
	err     error
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.written += int64(n)
	if err != nil {
		s.err = err
	}
	return n, err
}

// complete returns an error if a command ran well, or failed because of its output, and not all of
// the output was written: a file with half of it would look complete. A reader that closed its pipe
// does not matter.
func (s *screen) complete(err error) error {
	if s.err == nil || errors.Is(s.err, syscall.EPIPE) || err != nil && !errors.Is(err, s.err) {
		return err
	}
	return failed(fmt.Sprintf("the output can't be written: %v", problem.WithoutPath(s.err)),
		"make room where it goes, or send it elsewhere")
}

func (ui *console) say(format string, v ...any) { fmt.Fprintf(ui.stderr, format+"\n", v...) }

// warn prints an error that does not end the command.
func (ui *console) warn(err error) {
	if err != nil {
		ui.say("mlfnode: %v", err)
	}
}

// printError prints an error for the user and returns the exit code.
func (ui *console) printError(err error) int {
	if err == nil {
		return 0
	}
	f := asFailure(err)
	if f.msg != "" {
		// The message may contain what another machine has said.
		for i, line := range strings.Split(printable.Text(f.msg, longestMessage), "\n") {
			if i == 0 {
				line = "mlfnode: " + line
			}
			fmt.Fprintln(ui.stderr, line)
		}
	}
	if f.hint != "" {
		fmt.Fprintln(ui.stderr, "  try: "+printable.Text(f.hint, longestMessage))
	}
	return f.code
}

// colours reports whether w is a terminal that may be coloured.
func (ui *console) colours(w io.Writer) bool {
	return !ui.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func (ui *console) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&ui.json, "json", false, "print JSON")
}

func (ui *console) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(ui.stdout, "%s\n", b)
	return err
}

// jsonArray prints values one by one, so that the whole list is never in memory.
type jsonArray struct {
	w    io.Writer
	open bool
}

func (j *jsonArray) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if !j.open {
		sep, j.open = "[\n", true
	}
	_, err = fmt.Fprintf(j.w, "%s%s", sep, b)
	return err
}

func (j *jsonArray) close() error {
	text := "\n]\n"
	if !j.open {
		text = "[]\n"
	}
	_, err := io.WriteString(j.w, text)
	return err
}
