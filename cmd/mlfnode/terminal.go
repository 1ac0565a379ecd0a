package main

import (
	"context"
	"fmt"
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

// askSecret asks on the terminal for what is not shown while it is typed.
func (ui *console) askSecret(ctx context.Context, question string) ([]byte, error) {
	stdin := int(os.Stdin.Fd())
	shown, err := term.GetState(stdin)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(ui.stderr, question)
	b, err := answerOr(ctx, func() ([]byte, error) { return term.ReadPassword(stdin) })
	_ = term.Restore(stdin, shown) // as ReadPassword does, if it comes to an end
	fmt.Fprintln(ui.stderr)
	return b, err
}

// answerOr waits for an answer, or for the end of what it is asked for: who types has pressed Ctrl-C then.
func answerOr[T any](ctx context.Context, read func() (T, error)) (answer T, err error) {
	type given struct {
		answer T
		err    error
	}
	done := make(chan given, 1)
	go func() { // a read from a terminal can't be broken off: it ends with the next line, or with the program
		answer, err := read()
		done <- given{answer, err}
	}()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return answer, context.Cause(ctx)
	}
}
