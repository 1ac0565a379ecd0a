package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

func isTerminal(w io.Writer) bool {
	f, ok := file(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the number of columns of a terminal, 80 when it does not say.
func width(w io.Writer) int {
	columns, _ := size(w)
	return columns
}

// size is the number of columns and lines of a terminal, 80 and 24 when it does not say.
func size(w io.Writer) (columns, lines int) {
	if f, ok := file(w); ok {
		if columns, lines, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 && lines > 0 {
			return columns, lines
		}
	}
	return 80, 24
}

// file gives the file behind w.
func file(w io.Writer) (*os.File, bool) {
	if s, ok := w.(*screen); ok {
		w = s.w
	}
	f, ok := w.(*os.File)
	return f, ok
}
