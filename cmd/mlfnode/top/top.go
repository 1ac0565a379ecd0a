// Package top shows a cluster in a terminal: what it is doing, one sweep with its trials, or one
// trial with its output. It is the counterpart of the page that mlfnode monitor shows in a browser,
// and it makes the same calls of the HTTP API.
//
// A Model is the state of what is shown. It changes only through messages: keys, sizes of the
// terminal, states from the event stream, and answers to requests. Its screens determine which
// topics of the stream they need. When a state says that something has changed which the stream
// does not report itself, they request it. Apart from the output of a running trial, which is
// polled, nothing is requested or redrawn unless something changes.
package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"mlfnode/node/api"
)

const (
	framesPerSecond = 10               // the maximum
	answerTime      = 30 * time.Second // for one request
)

// Config connects the program to a cluster and a terminal.
type Config struct {
	Client  func() *api.Client              // returns a client of the node
	Again   func(ctx context.Context) error // finds the node again after it went away
	Hosts   func() bool                     // reports whether trials of this machine run in this process
	Failed  <-chan error                    // reports that a node in this process has ended unexpectedly
	Colours bool
	Input   *os.File // a terminal
	Output  *os.File // a terminal
}

// Run shows the cluster until the user quits, which is not an error, or ctx is canceled. It then
// restores the terminal.
func Run(ctx context.Context, cfg Config) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work := tasks{fail: stop}
	defer work.wait()
	defer stop(nil)
	m := New(cfg.Colours, time.Now)
	m.hosts = cfg.Hosts
	m.ask = func(wait time.Duration, q question) tea.Cmd {
		return func() (msg tea.Msg) {
			work.do(func() { msg = askAfter(ctx, cfg.Client, wait, q) })
			return msg
		}
	}
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(cfg.Input), tea.WithOutput(cfg.Output),
		tea.WithFPS(framesPerSecond), tea.WithoutSignalHandler())
	f := newFeed(cfg.Client, cfg.Again, p.Send)
	m.want, m.retry = f.want, f.retry
	go work.do(func() { f.run(ctx) })
	go work.do(func() {
		select {
		case err := <-cfg.Failed:
			stop(err)
		case <-ctx.Done():
		}
	})
	_, err := p.Run()
	ended := ctx.Err() != nil // ctx ended before p did; p is also killed by its own faults
	stop(nil)
	if ended && errors.Is(err, tea.ErrProgramKilled) && !errors.Is(err, tea.ErrProgramPanic) {
		err = context.Cause(ctx)
	}
	return err
}

// tasks tracks the goroutines that run beside the model.
type tasks struct {
	fail func(error) // ends the program, with the error of a goroutine that panicked

	mu   sync.Mutex
	wg   sync.WaitGroup
	over bool
}

// do runs fn, unless wait has been called. A panic ends the program, which restores the terminal.
func (t *tasks) do(fn func()) {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	defer func() {
		if r := recover(); r != nil {
			t.fail(fmt.Errorf("panic: %v\n%s", r, debug.Stack()))
		}
	}()
	fn()
}

// wait waits for all goroutines to end, and prevents new ones from starting.
func (t *tasks) wait() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.wg.Wait()
}

// question asks the node for something and returns a function that handles the answer.
type question func(ctx context.Context, c *api.Client) answer

// answer applies an answer to the model. It is called as a message, when nothing else changes the
// model.
type answer func() tea.Cmd

// askAfter asks a question after some time.
func askAfter(ctx context.Context, client func() *api.Client, wait time.Duration, q question) tea.Msg {
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	return q(ctx, client())
}
