package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"mlfnode/cluster/bootstrap/shell"
)

// answerOr waits for an answer, or until ctx is canceled because the user has pressed Ctrl-C.
func answerOr[T any](ctx context.Context, read func() (T, error)) (answer T, err error) {
	type given struct {
		answer T
		err    error
	}
	done := make(chan given, 1)
	go func() { // a read from a terminal can't be canceled: it ends with the next line or with the program
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

// readLine reads a line byte by byte, so that the rest is left for the next question.
func readLine(f *os.File) (string, error) {
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := f.Read(b)
		if n == 0 || b[0] == '\n' {
			return strings.TrimSpace(string(line)), err
		}
		line = append(line, b[0])
	}
}

// prompter asks questions on the terminal, in place of the view.
type prompter struct {
	ui   *console
	view *clusterView
}

// Confirm implements shell.Prompter.
func (k *prompter) Confirm(ctx context.Context, question string) (bool, error) {
	defer k.view.pause()()
	fmt.Fprint(k.ui.stderr, question+" (yes/no) ")
	line, err := answerOr(ctx, func() (string, error) { return readLine(os.Stdin) })
	return strings.EqualFold(line, "yes"), err
}

// confirmLosses asks whether results may be removed.
func (k *prompter) confirmLosses(ctx context.Context, losses []string) error {
	defer k.view.pause()()
	k.ui.say("this removes for good:")
	for _, l := range losses {
		k.ui.say("  %s", oneLine(l))
	}
	if !isTerminal(os.Stdin) || !isTerminal(k.ui.stderr) {
		return failed("this removes results, and there is no terminal to confirm it on; nothing was changed",
			"mlfnode down --purge --yes, or mlfnode down, which keeps all files")
	}
	yes, err := k.Confirm(ctx, "Remove it?")
	if err == nil && !yes {
		return failed("nothing was changed", "mlfnode down, which keeps all files")
	}
	return err
}

// Secret implements shell.Prompter.
func (k *prompter) Secret(ctx context.Context, question string) ([]byte, error) {
	defer k.view.pause()()
	return k.ui.askSecret(ctx, secretQuestion(question))
}

// newPrompter returns what asks the questions of ssh, nil if there is no terminal.
func newPrompter(ui *console, v *clusterView) shell.Prompter {
	if !isTerminal(os.Stdin) || !isTerminal(ui.stderr) {
		return nil
	}
	return &prompter{ui, v}
}

// secretQuestion returns a question, which may come from another machine, as it is shown.
func secretQuestion(text string) string {
	text = oneLine(text)
	if !strings.HasSuffix(text, ":") && !strings.HasSuffix(text, "?") {
		text += ":"
	}
	return text + " "
}

// askSecret asks on the terminal for a secret, which is not shown while it is typed.
func (ui *console) askSecret(ctx context.Context, question string) ([]byte, error) {
	stdin := int(os.Stdin.Fd())
	shown, err := term.GetState(stdin)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(ui.stderr, question)
	b, err := answerOr(ctx, func() ([]byte, error) { return term.ReadPassword(stdin) })
	_ = term.Restore(stdin, shown) // as ReadPassword does, if it returns
	fmt.Fprintln(ui.stderr)
	return b, err
}
