package guarantees

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// ledger is a file outside of the cluster that trials tell when and where they begin and end.
type ledger struct {
	t    *testing.T
	path string
}

// ledgerLine is one line of the ledger.
type ledgerLine struct {
	at    time.Time
	host  string
	index int64
	pid   string
	ended bool
}

// lines reads the ledger.
func (l ledger) lines() []ledgerLine {
	l.t.Helper()
	text, err := os.ReadFile(l.path)
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	var all []ledgerLine
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			l.t.Fatalf("the ledger has the line %q", line)
		}
		seconds, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			l.t.Fatalf("the ledger has the line %q", line)
		}
		_, number, _ := strings.Cut(f[2], "/")
		index, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			l.t.Fatalf("the ledger has the line %q", line)
		}
		all = append(all, ledgerLine{at: time.UnixMicro(int64(seconds * 1e6)), host: f[1], index: index, pid: f[3],
			ended: f[4] == "end"})
	}
	return all
}

// started counts the trials that have begun.
func (l ledger) started() int {
	seen := map[int64]bool{}
	for _, r := range l.lines() {
		seen[r.index] = true
	}
	return len(seen)
}

// waitForStarted waits until so many trials have begun.
func (l ledger) waitForStarted(n int) {
	l.t.Helper()
	hosts.WaitFor(l.t, hosts.Timeout, func() error {
		if got := l.started(); got < n {
			return fmt.Errorf("%d trials have begun, want %d", got, n)
		}
		return nil
	})
}

// running gives the trials that have begun on a host and not ended there.
func (l ledger) running(host string) []int64 {
	now := map[int64]bool{}
	for _, r := range l.lines() {
		if r.host == host {
			now[r.index] = !r.ended
		}
	}
	var list []int64
	for index, yes := range now {
		if yes {
			list = append(list, index)
		}
	}
	slices.Sort(list)
	return list
}

// waitForElsewhere waits until trials run on other hosts than the one that they were on, and gives
// when the last one began.
func (l ledger) waitForElsewhere(trials []int64, from string, since time.Time, limit time.Duration) (last time.Time) {
	l.t.Helper()
	hosts.WaitFor(l.t, limit, func() error {
		last = time.Time{}
		for _, index := range trials {
			began := time.Time{}
			for _, r := range l.lines() {
				if r.index == index && r.host != from && !r.ended && r.at.After(since) {
					began = r.at
					break
				}
			}
			if began.IsZero() {
				return fmt.Errorf("trial %d does not run elsewhere than on %s", index, from)
			}
			if began.After(last) {
				last = began
			}
		}
		return nil
	})
	return last
}

// first gives where each trial began first, and as which process.
func (l ledger) first() map[int64]ledgerLine {
	l.t.Helper()
	all := map[int64]ledgerLine{}
	for _, r := range l.lines() {
		if _, known := all[r.index]; !known {
			all[r.index] = r
		}
	}
	return all
}
