package monitor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestStreamsThatFailAtOnce requests streams of things that do not exist: they are refused with a
// status, as other calls are. A stream that has begun ends with the error in a line.
func TestStreamsThatFailAtOnce(t *testing.T) {
	p := newPrintingSweep(t, 9)
	for query, want := range map[string]int{"index=0&attempt=1": http.StatusOK,
		"index=0&attempt=9": http.StatusBadRequest, "index=0&attempt=x": http.StatusBadRequest} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?"+query, nil)
		r.SetPathValue("sweep", p.id)
		w := httptest.NewRecorder()
		p.handlers.output.stream(w, r)
		text := w.Body.String()
		if w.Code != want || (want != http.StatusOK) != (w.Header().Get("Content-Type") == api.MediaProblem) ||
			(want != http.StatusOK && !strings.Contains(text, "attempt")) {
			t.Errorf("%s: got status %d, %v and %q; want %d", query, w.Code, w.Header(), text, want)
		}
	}
	w := httptest.NewRecorder()
	out := newLineWriter(w)
	if err := out.write("first"); err != nil {
		t.Fatal(err)
	}
	out.close(t.Context(), fmt.Errorf("boom"))
	if got := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(got, "first") ||
		!strings.Contains(got, "boom") {
		t.Errorf("a stream that fails later: got status %d and %q", w.Code, got)
	}
}

func TestAttemptNumber(t *testing.T) {
	for text, want := range map[string]int{"": 0, "0": 0, "1": 1, "17": 17, "abc": -1, "-1": -1, "1e3": -1, "1.5": -1,
		" 1": -1, "99999999999999999999": -1} {
		got, err := attemptNumber(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
}
