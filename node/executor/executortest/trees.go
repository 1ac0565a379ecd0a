package executortest

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

func backgroundChild(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	o := s.run(t.Context(), s.script("sleep 1000 & sleep 1000 & exit 3"))
	s.expect(o, grid.ClassExit, 3, "")
	s.leftovers(o, 2, 2)
}

func sessionLeader(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	o := s.run(t.Context(), s.script("setsid sh -c 'echo >ready; exec sleep 1000' & while ! test -e ready; do :; done"))
	s.expect(o, grid.ClassNone, 0, "")
	s.leftovers(o, 1, 1)
}

// daemon forks twice into a session of its own, and the orphan starts children.
func daemon(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	o := s.run(t.Context(),
		s.script(
			"(setsid sh -c '(sleep 1000 & echo >ready; sleep 1000) & exit' &); while ! test -e ready; do :; done; exit 4"))
	s.expect(o, grid.ClassExit, 4, "")
	s.leftovers(o, 2, 100)
}

// Nest is the part of a shell script that moves the shell into a cgroup two levels below its own,
// in every hierarchy in which an executor has put it into a slot's cgroup, as container runtimes
// and nested agents do.
const Nest = `for p in $(cut -d: -f3- /proc/self/cgroup | sort -u); do
	case $p in */slot-*) ;; *) continue ;; esac
	for m in /sys/fs/cgroup /sys/fs/cgroup/*; do
		[ -e "$m$p/cgroup.procs" ] && mkdir -p "$m$p/sub/deeper" && echo $$ >"$m$p/sub/deeper/cgroup.procs"
	done
done
`

// nestedCgroups leaves a process in a cgroup that the program has created below its own, and checks
// that the next attempt finds none of it.
func nestedCgroups(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	s.write("nest.sh", Nest+`for p in $(cut -d: -f3- /proc/self/cgroup | sort -u); do
	case $p in */sub/deeper) ;; *) continue ;; esac
	for m in /sys/fs/cgroup /sys/fs/cgroup/*; do
		[ -e "$m$p" ] && echo "$m$p"
	done
done
echo >ready; exec sleep 1000
`, 0o755)
	for range 3 {
		o := s.run(t.Context(), s.script("setsid sh nest.sh & while ! test -e ready; do :; done; rm ready; exit 4"))
		s.expect(o, grid.ClassExit, 4, "")
		s.leftovers(o, 1, 1)
		for dir := range strings.FieldsSeq(s.read("stdout")) {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("a cgroup of the attempt is left: %s", dir)
			}
		}
	}
	// The same tree, stopped.
	ctx, cancel := context.WithCancelCause(t.Context())
	o := s.runThen(ctx, s.script("setsid sh nest.sh & while ! test -e ready; do :; done; exec sleep 1000"), func() {
		cancel(executor.ErrCancelled)
	})
	s.expect(o, grid.ClassCancel, 143, "cancelled")
}

func stubbornLeftover(t *testing.T, e executor.Executor) {
	s := newHarness(t, e)
	a := s.script("(trap '' TERM; echo >ready; while :; do sleep 1000; done) & while ! test -e ready; do :; done")
	a.Grace = 50 * time.Millisecond
	s.expect(s.run(t.Context(), a), grid.ClassNone, 0, "")
}

// neighbours checks that cleaning up after one attempt spares the trees of others.
func neighbours(t *testing.T, e executor.Executor) {
	one, two := newHarness(t, e), newHarness(t, e)
	a := one.script("(setsid sh -c '(echo >ready; while ! test -e go; do sleep 0.01; done; echo >survived) &' &); while ! test -e survived; do sleep 0.01; done")
	done := make(chan executor.Outcome, 1)
	go func() { done <- one.run(t.Context(), a) }()
	one.await("ready")
	for range 20 {
		o := two.run(t.Context(), two.script("sleep 1000 & setsid sleep 1000 & exit 0"))
		two.expect(o, grid.ClassNone, 0, "")
	}
	one.write("go", "x\n", 0o600)
	one.expect(<-done, grid.ClassNone, 0, "")
}

// leftovers checks how many processes outlived their program, where they are counted.
func (s *harness) leftovers(o executor.Outcome, least, most int) {
	s.Helper()
	if s.kit.Contained {
		least, most = 0, 0
	}
	if o.Leftovers < least || o.Leftovers > most {
		s.Errorf("leftovers: got %d, want %d to %d", o.Leftovers, least, most)
	}
}
