package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// runPrinting runs a program that writes both texts and ends; the sweep's record may be changed. It
// returns the result.
func runPrinting(t *testing.T, stdout, stderr string, edit func(*grid.Sweep)) (*harness, *grid.Sweep, grid.Event) {
	t.Helper()
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		io.WriteString(a.Stdout, stdout)
		io.WriteString(a.Stderr, stderr)
		return succeeded()
	})
	r := s.sweep("t-1", 1, 1, edit)
	s.lease(r, 0, 1)
	s.run()
	return s, r, s.finished(r.ID, 1)[0]
}

func TestOutputIsStoredAsItIs(t *testing.T) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	for _, c := range []struct{ name, stdout, stderr string }{
		{"lines", "one\ntwo\n", "three\n"},
		{"nothing", "", ""},
		{"no end of line", "one", "two"},
		{"carriage returns", "10%\r20%\r\n", "\r\r\r"},
		{"NUL", "a\x00b\x00\n", "\x00"},
		{"any bytes", string(binary), string(binary)},
		{"many-byte characters", strings.Repeat("äß€😀", 1000), "日本語"},
		{"cut characters at the end", "a\xe2\x82", "\xf0\x9f"},
		{"a huge line", strings.Repeat("x", 3*maxPiece+7), strings.Repeat("y", 2<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r, e := runPrinting(t, c.stdout, c.stderr, nil)
			for stream, want := range map[uint8]string{streamOut: c.stdout, streamErr: c.stderr} {
				if got := s.output(r.ID, e.Run, stream); got != want {
					t.Errorf(
						"stream %d: got %d bytes %.80q, want %d bytes %.80q", stream, len(got), got, len(want), want,
					)
				}
			}
			if ref := e.Result.Log; ref.Bytes != int64(len(c.stdout)+len(c.stderr)) || ref.Cut != 0 ||
				(ref.First == 0) != (ref.Bytes == 0) {
				t.Errorf("log reference: got %+v, want all %d bytes", ref, len(c.stdout)+len(c.stderr))
			}
		})
	}
}

// TestOutputAfterTheFileWasEmptied truncates the file, as a shell's `echo > /dev/stderr` does.
func TestOutputAfterTheFileWasEmptied(t *testing.T) {
	var s *harness
	s = newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		io.WriteString(a.Stderr, "the first line\n")
		eventually(t, "the first line is stored", func() bool {
			next, err := s.store.Logs.Next(ctx)
			return err == nil && next > 1
		})
		if err := a.Stderr.Truncate(0); err != nil {
			t.Errorf("empty the file: %v", err)
		}
		io.WriteString(a.Stderr, "then\n")
		return succeeded()
	})
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	e := s.finished(r.ID, 1)[0]
	if got, want := s.output(r.ID, e.Run, streamErr), "the first line\nthen\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if e.Result.Log.Bytes != 20 {
		t.Errorf("got %d bytes stored, want 20", e.Result.Log.Bytes)
	}
}

// TestPiecesEndBetweenCharacters examines each stored piece of a long text whose characters have
// all widths.
func TestPiecesEndBetweenCharacters(t *testing.T) {
	for shift := range 4 {
		text := strings.Repeat("x", shift) + strings.Repeat("€😀ä", maxPiece/3)
		s, r, _ := runPrinting(t, text, "", nil)
		err := s.store.Logs.Read(t.Context(), r.ID, jetstream.LogRange{}, func(
			_ uint64, chunks []jetstream.Chunk,
		) error {
			for _, c := range chunks {
				if !utf8.Valid(c.Data) {
					t.Errorf("shift %d: the piece at %d of %d bytes tears a character", shift, c.Offset, len(c.Data))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOutputIsCutVisibly prints more than the limit: the result says what is stored and what is
// not, and no character is split.
func TestOutputIsCutVisibly(t *testing.T) {
	for _, c := range []struct {
		name, stdout, stderr string
		limit                int64
		stored               int64
	}{
		{"just fits", "12345", "67890", 10, 10},
		{"one too many", "12345", "678901", 10, 10},
		{"over the limit by far", strings.Repeat("x", 1<<20), strings.Repeat("y", 1<<20), 1000, 1000},
		{"in the middle of a character", "ab€", "", 4, 2},
		{"in the middle of the next one", "ab€😀", "", 7, 5},
		{"bytes that are not characters", "\xff\xff\xff\xff\xff", "", 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r, e := runPrinting(t, c.stdout, c.stderr, func(r *grid.Sweep) { r.Task.LogLimit = c.limit })
			all := int64(len(c.stdout) + len(c.stderr))
			if ref := e.Result.Log; ref.Bytes != c.stored || ref.Cut != all-c.stored {
				t.Errorf(
					"log reference: got %d bytes stored, %d cut; want %d, %d", ref.Bytes, ref.Cut, c.stored,
					all-c.stored,
				)
			}
			out := s.output(r.ID, e.Run, streamOut) + s.output(r.ID, e.Run, streamErr)
			if int64(len(out)) != c.stored || !strings.HasPrefix(c.stdout+c.stderr, out) {
				t.Errorf("stored output: got %d bytes %.40q, want the first %d", len(out), out, c.stored)
			}
		})
	}
}

// TestOutputIsShippedWhileWritten runs a program that waits, after each part, until the part is
// stored: in the middle of a line and of a character.
func TestOutputIsShippedWhileWritten(t *testing.T) {
	parts := []string{"one\n", "two", " three\n", "fo\xe2\x82", "\xac\n"}
	seen := []string{"one\n", "one\ntwo", "one\ntwo three\n", "one\ntwo three\nfo", "one\ntwo three\nfo€\n"}
	step, written := make(chan string), make(chan struct{})
	s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		for {
			select {
			case text, ok := <-step:
				if !ok {
					return succeeded()
				}
				io.WriteString(a.Stdout, text)
				written <- struct{}{}
			case <-ctx.Done():
				return succeeded()
			}
		}
	})
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	stored := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		text := ""
		_ = s.store.Logs.Read(ctx, r.ID, jetstream.LogRange{Follow: true}, func(
			_ uint64, chunks []jetstream.Chunk,
		) error {
			for _, c := range chunks {
				text += string(c.Data)
				stored <- text
			}
			return nil
		})
	}()
	for i, p := range parts {
		step <- p
		<-written
		if i > 0 && seen[i] == seen[i-1] {
			continue
		}
		for text := ""; text != seen[i]; {
			text = receive(t, fmt.Sprintf("output %q", seen[i]), stored)
			if !strings.HasPrefix(seen[i], text) || !utf8.ValidString(text) {
				t.Fatalf("after part %d: got %q, want %q", i, text, seen[i])
			}
		}
	}
	close(step)
	s.finished(r.ID, 1)
	stop()
	<-reading
	if all := s.events(
		r.ID, func(all []grid.Event) bool { return len(only(all, grid.Finished)) == 1 },
	); all[0].Kind != grid.Started {
		t.Errorf("events: got %v, want the start of a trial that runs for long first", kinds(all))
	}
}

// TestReasonHoldsTheLastLines fails with output on both streams.
func TestReasonHoldsTheLastLines(t *testing.T) {
	for _, c := range []struct{ name, stdout, stderr, want string }{
		{"stderr is preferred", "out\n", "1\n2\n3\n4\n5\n6\n7\n", "exit code 1\n3\n4\n5\n6\n7"},
		{"stdout when stderr is empty", "a\nb\n\n\n", "", "exit code 1\na\nb"},
		{"stdout when stderr is blank", "a\n", "\n \n", "exit code 1\na"},
		{"nothing printed", "", "", "exit code 1"},
		{"not UTF-8", "", "a\xff\xfeb\n", "exit code 1\na�b"},
		{"a huge line", "", strings.Repeat("ä", 10_000), "exit code 1\n" + strings.Repeat("ä", reasonBytes/2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
				io.WriteString(a.Stdout, c.stdout)
				io.WriteString(a.Stderr, c.stderr)
				o := succeeded()
				o.Class, o.ExitCode, o.Reason = grid.ClassExit, 1, "exit code 1"
				return o
			})
			r := s.sweep("t-1", 1, 1, nil)
			s.lease(r, 0, 1)
			s.run()
			if got := s.finished(r.ID, 1)[0].Result.Reason; got != c.want {
				t.Errorf("reason: got %.100q, want %.100q", got, c.want)
			}
		})
	}
}

// TestManyTrialsOfALease prints from several trials at once: each has only its own output.
func TestManyTrialsOfALease(t *testing.T) {
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		trial := variable(a.Env, "MLF_TRIAL")
		a.Stdout.Write(bytes.Repeat([]byte(trial+"\n"), 50))
		return succeeded()
	})
	r := s.sweep("t-1", 40, 1, nil)
	s.lease(r, 0, 20)
	s.lease(r, 20, 40)
	s.run()
	all := s.finished(r.ID, 40)
	indexes := make([]int64, 0, 40)
	for _, e := range all {
		indexes = append(indexes, e.Index)
		id := grid.TrialID{Sweep: r.ID, Index: e.Index}
		if got, want := s.output(r.ID, e.Run, streamOut), strings.Repeat(id.String()+"\n", 50); got != want {
			t.Errorf("output of %s: got %.60q, want %.60q", id, got, want)
		}
	}
	slices.Sort(indexes)
	if len(slices.Compact(indexes)) != 40 {
		t.Errorf("results: got %v, want each of 40 trials once", indexes)
	}
}
