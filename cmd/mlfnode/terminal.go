package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

func isTerminal(w io.Writer) bool {
	f, ok := fileOf(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalSize returns the number of columns and lines of a terminal, 80 and 24 if they are
// unknown.
func terminalSize(w io.Writer) (columns, lines int) {
	if f, ok := fileOf(w); ok {
		if columns, lines, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && lines > 0 {
			return columns, lines
		}
	}
	return 80, 24
}

// fileOf returns the file behind w.
func fileOf(w io.Writer) (*os.File, bool) {
	if s, ok := w.(*screen); ok {
		w = s.w
	}
	f, ok := w.(*os.File)
	return f, ok
}
