package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// TestSending shows how far files are that are sent for long, and nothing of those that are there
// at once.
func TestSending(t *testing.T) {
	const part = 1000
	for _, tt := range []struct {
		name     string
		parts    int
		each     time.Duration // a part takes
		terminal bool
		want     []string // what is shown, one after the other
	}{
		{"at once", 8, time.Millisecond, true, nil},
		{"slow", 8, 700 * time.Millisecond, true,
			[]string{"\r\x1b[Ksending the files: 4.0 kB of 8.0 kB", "5.0 kB of 8.0 kB", "8.0 kB of 8.0 kB"}},
		{"small parts", 24, 100 * time.Millisecond, true,
			[]string{"21 kB of 24 kB\r\x1b[Ksending the files: 23 kB of 24 kB"}},
		{"into a file", 8, 700 * time.Millisecond, false, []string{"sending the files, 8.0 kB\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			now := time.Now()
			text := strings.Repeat("x", tt.parts*part)
			s := &uploadProgress{r: strings.NewReader(text), w: &out, terminal: tt.terminal, total: int64(len(text)),
				now: func() time.Time { return now }}
			for buf := make([]byte, part); ; now = now.Add(tt.each) {
				if _, err := s.Read(buf); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			s.clear()
			rest := out.String()
			for _, want := range tt.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("got %q, want %q in it", out.String(), tt.want)
				}
				rest = after
			}
			if tt.want == nil && out.Len() > 0 {
				t.Errorf("got %q, want nothing", &out)
			}
			if tt.want != nil && tt.terminal && !strings.HasSuffix(out.String(), "\r\x1b[K") {
				t.Errorf("got %q, want the line taken off in the end", &out)
			}
			if _, err := s.Read(make([]byte, part)); err != io.EOF || strings.HasSuffix(out.String(), "kB") {
				t.Errorf("read on after the end: got %v, %q", err, &out)
			}
		})
	}
}
