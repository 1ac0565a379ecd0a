package checkpoint_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
)

// saveAs stores a folder as this snapshot of a trial.
func saveAs(t *testing.T, s checkpoint.Remote, id grid.TrialID, dir string, snapshot checkpoint.Snapshot) (int, error) {
	t.Helper()
	snapshot.Files = scan(t, dir)
	if err := checkpoint.HashFiles(t.Context(), dir, snapshot.Files, nil); err != nil {
		t.Fatal(err)
	}
	return checkpoint.Send(t.Context(), s, id, &snapshot, dir, checkpoint.NewLimiter(0))
}

// generations lists what is kept of the trial.
func generations(t *testing.T, s *checkpoint.Store) (all []int) {
	for n := range 20 {
		if _, err := s.Load(t.Context(), trial, n); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// TestTornGenerationsNeverReplaceACleanOne stores what attempts leave that are killed again and
// again while they write: the last state that was left clean stays.
func TestTornGenerationsNeverReplaceACleanOne(t *testing.T) {
	live := t.TempDir()
	s := open(t, t.TempDir(), 1<<30)
	for i, step := range []struct {
		clean   bool
		resumed int
		want    []int
	}{
		{true, 0, []int{1}}, {false, 1, []int{1, 2}}, {false, 2, []int{1, 3}}, {false, 3, []int{1, 4}},
		{false, 3, []int{1, 5}},
		{true, 5, []int{1, 6}}, {true, 6, []int{6, 7}}, {true, 6, []int{6, 8}}, {false, 8, []int{8, 9}},
		{true, 8, []int{8, 10}},
	} {
		write(t, live, map[string]string{"step": fmt.Sprint(i)})
		n, err := saveAs(
			t, s, trial, live, checkpoint.Snapshot{Attempt: i + 1, Resumed: step.resumed, Clean: step.clean},
		)
		if got := generations(t, s); err != nil || n != i+1 || !slices.Equal(got, step.want) {
			t.Errorf("snapshot %d: got number %d, %v kept, %v; want %v", i+1, n, got, err, step.want)
		}
	}
	// The same state once more does not make another generation.
	if n, err := saveAs(t, s, trial, live, checkpoint.Snapshot{Attempt: 11, Resumed: 10}); n != 10 || err != nil {
		t.Errorf("got snapshot %d, %v of what is stored as 10", n, err)
	}
}

// TestEachGenerationIsJudgedAlone rejects what attempts could not read: that and nothing else is
// removed.
func TestEachGenerationIsJudgedAlone(t *testing.T) {
	live := t.TempDir()
	s := open(t, t.TempDir(), 1<<30)
	for i := range 2 {
		write(t, live, map[string]string{"step": fmt.Sprint(i)})
		mustSave(t, s, live, i+1, i)
	}
	for _, step := range []struct {
		attempt, resumed int
		want             []int
	}{
		{3, 0, []int{1, 2}}, // what its node had, which was never stored
		{4, 2, []int{1}}, {4, 1, []int{1}} /* a repeated event */, {2, 1, []int{1}} /* an old one */, {5, 1, nil},
	} {
		if err := s.Reject(trial, step.attempt, step.resumed); err != nil {
			t.Fatal(err)
		}
		if got := generations(t, s); !slices.Equal(got, step.want) {
			t.Errorf("attempt %d could not read %d: got %v kept, want %v", step.attempt, step.resumed, got, step.want)
		}
	}
}

// TestDamagedStore damages what a master has on its disk of the newest snapshot: the one before
// stays readable, and no number is used twice.
func TestDamagedStore(t *testing.T) {
	for name, damage := range map[string]func(dir, newest string) error{
		"no manifest": func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "2.json"), []byte("{"), 0o600)
		},
		"no content":   func(_, newest string) error { return os.Remove(newest) },
		"torn content": func(_, newest string) error { return os.Truncate(newest, 1) },
		"no trial.json": func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "trial.json"), []byte{0, 0}, 0o600)
		},
		"other content": func(_, newest string) error { return os.WriteFile(newest, []byte("2ndX"), 0o600) },
	} {
		live, dir, to := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "live")
		s := open(t, dir, 1<<30)
		hash := ""
		for i, text := range []string{"1st.", "2nd."} {
			write(t, live, map[string]string{"step": text})
			mustSave(t, s, live, i+1, i)
			newest, _ := s.Load(t.Context(), trial, i+1)
			hash = newest.Files[0].Hash
		}
		folder := filepath.Join(dir, "s-1", "7")
		if err := damage(folder, filepath.Join(folder, "files", hash)); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, 1<<30)
		n, _ := s.Newest(trial)
		if name == "other content" { // found when it is read
			if err := restore(t, s, n, to); n != 2 || !errors.Is(err, checkpoint.ErrDamaged) {
				t.Errorf("%s: got snapshot %d, %v; want 2, ErrDamaged", name, n, err)
			}
			n, _ = s.Newest(trial)
		}
		err := restore(t, s, n, to)
		if b, _ := os.ReadFile(filepath.Join(to, "step")); err != nil ||
			string(b) != map[bool]string{true: "2nd.", false: "1st."}[n == 2] {
			t.Errorf("%s: snapshot %d: got %q, %v", name, n, b, err)
		}
		if (n == 2) != (name == "no trial.json") {
			t.Errorf("%s: got snapshot %d", name, n)
		}
		write(t, live, map[string]string{"step": "3rd."})
		if got := mustSave(t, s, live, 3, n); got <= 2 {
			t.Errorf("%s: the number %d is used twice", name, got)
		}
	}
}

// TestVerify has the store look at what it has: only what is damaged is given up, with its room,
// and may be sent once more.
func TestVerify(t *testing.T) {
	live, dir := t.TempDir(), t.TempDir()
	s := open(t, dir, 1<<30)
	hashes := map[int]string{}
	for i := range 2 {
		write(t, live, map[string]string{"step": fmt.Sprint(i)})
		newest, err := s.Load(t.Context(), trial, mustSave(t, s, live, i+1, i))
		if err != nil {
			t.Fatal(err)
		}
		hashes[i+1] = newest.Files[0].Hash
	}
	for hash, want := range map[string]error{hashes[1]: nil, hashes[2]: nil, "../../x": fs.ErrNotExist} {
		if err := s.Verify(t.Context(), trial, hash); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := s.Verify(t.Context(), grid.TrialID{Sweep: "unknown-1"}, hashes[1]); !errors.Is(err, fs.ErrNotExist) ||
		len(s.Sweeps()) != 1 {
		t.Errorf("got %v, %v for a trial of which nothing is stored", err, s.Sweeps())
	}
	if err := os.WriteFile(filepath.Join(dir, "s-1", "7", "files", hashes[2]), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), trial, hashes[2]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for a damaged content", err)
	}
	if got := generations(t, s); !slices.Equal(got, []int{1}) {
		t.Errorf("got %v kept, want the undamaged one", got)
	}
	if bytes, _ := s.Usage(); bytes != 1 {
		t.Errorf("got %d bytes, want 1", bytes)
	}
	if got := mustSave(t, s, live, 3, 1); got != 3 {
		t.Errorf("got number %d for the state that was sent again", got)
	}
	if err := restore(t, s, 3, filepath.Join(t.TempDir(), "live")); err != nil {
		t.Error(err)
	}
}

// TestUploadsReserveTheirRoom has many nodes send at one time: together they stay below the limit,
// and what was reserved for those that are cut off comes back.
func TestUploadsReserveTheirRoom(t *testing.T) {
	s := open(t, t.TempDir(), 1000)
	live := t.TempDir()
	write(t, live, map[string]string{"a": strings.Repeat("a", 400)})
	snapshot := &checkpoint.Snapshot{Attempt: 1, Files: scan(t, live)}
	if err := checkpoint.HashFiles(t.Context(), live, snapshot.Files, nil); err != nil {
		t.Fatal(err)
	}
	var readers []*io.PipeWriter
	var uploads sync.WaitGroup
	full := 0
	for i := range int64(5) {
		id := grid.TrialID{Sweep: "s-1", Index: i}
		if _, missing, err := s.Offer(t.Context(), id, snapshot); len(missing) > 0 {
			r, w := io.Pipe()
			begun := make(chan struct{})
			uploads.Go(func() {
				if err := s.Put(
					t.Context(), id, missing[0], io.MultiReader(begins(begun), r),
				); errors.Is(err, checkpoint.ErrFull) {
					close(begun)
					full++ // one after the other
				}
			})
			<-begun
			readers = append(readers, w)
		} else if errors.Is(err, checkpoint.ErrFull) {
			full++
		}
	}
	if bytes, limit := s.Usage(); bytes > limit || full != 3 {
		t.Errorf("got %d bytes of %d for uploads under way, %d refused; want 3 refused", bytes, limit, full)
	}
	for _, w := range readers {
		w.CloseWithError(errors.New("cut"))
	}
	uploads.Wait()
	if bytes, _ := s.Usage(); bytes != 0 {
		t.Errorf("got %d bytes after all was cut off, want none", bytes)
	}
}

// begins closes the channel when it is read, and gives nothing.
type begins chan struct{}

func (b begins) Read([]byte) (int, error) {
	close(b)
	return 0, io.EOF
}

// TestFullStoreMakesRoom stores what fits once that is gone which may go: first what the master
// gives up, then the generations before clean ones.
func TestFullStoreMakesRoom(t *testing.T) {
	live, s := t.TempDir(), open(t, t.TempDir(), 1000)
	ended, other := grid.TrialID{Sweep: "ended-1"}, grid.TrialID{Sweep: "other-1"}
	put := func(id grid.TrialID, text string, clean bool) error {
		write(t, live, map[string]string{"a": strings.Repeat(text, 300)})
		_, err := saveAs(t, s, id, live, checkpoint.Snapshot{Attempt: 1, Clean: clean})
		return err
	}
	asked := 0
	s.OnFull(func(need int64) {
		if asked++; need != 300 {
			t.Errorf("asked for %d bytes, want 300", need)
		}
		if err := s.Discard(ended); err != nil {
			t.Error(err)
		}
	})
	for i, step := range []struct {
		id    grid.TrialID
		clean bool
		asked int
		want  error
	}{
		{ended, true, 0, nil}, {trial, true, 0, nil}, {trial, true, 0, nil},
		{other, false, 1, nil},               // instead of the ended one
		{other, false, 2, nil},               // instead of the older one of trial 7
		{other, true, 3, checkpoint.ErrFull}, // all others are needed: the newest ones, and one before a torn one
		{trial, false, 4, checkpoint.ErrFull},
	} {
		if err := put(step.id, fmt.Sprint(i), step.clean); !errors.Is(err, step.want) || asked != step.asked {
			t.Errorf("step %d: got %v after asking %d times, want %v after %d", i, err, asked, step.want, step.asked)
		}
	}
	if got := generations(t, s); !slices.Equal(got, []int{2}) {
		t.Errorf("got %v kept, want the newest", got)
	}
	if bytes, _ := s.Usage(); bytes != 900 {
		t.Errorf("got %d bytes", bytes)
	}
}
