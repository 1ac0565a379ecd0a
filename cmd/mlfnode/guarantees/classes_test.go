package guarantees

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestFailuresByClass has trials of a cluster fail in three ways. All commands group them by class,
// on whichever host they are typed, and those of one class are run again.
func TestFailuresByClass(t *testing.T) {
	const each = 8
	p := newScenario(t, 3, hosts.Options{})
	mended := p.newFile("mended")
	worker := p.Hosts[1]
	r := worker.Try("sweep", "--retries", "0", "--set", fmt.Sprintf("n=0:%d", 3*each), "--", "sh", "-c", `test -e $1 && exit
case $(($0 % 3)) in
0) echo "OSError: [Errno 98] Address already in use" >&2 ;;
1) printf 'Traceback (most recent call last):\n  File "t.py", line 1, in <module>\nMemoryError\n' >&2 ;;
2) echo "ValueError: bad point $0" >&2 ;;
esac
exit 1`, "{n}", mended)
	groups := []string{
		fmt.Sprintf("%d × exit (the program ended with a code other than 0), as ", each),
		fmt.Sprintf("%d × oom (the program ran out of memory), as ", each),
		fmt.Sprintf("%d × port (a network port is taken), as ", each),
	}
	told := func(what, text string) {
		t.Helper()
		for _, group := range groups {
			if strings.Count(text, group) != 1 {
				t.Errorf("%s: got\n%s\nwant %q once", what, text, group)
			}
		}
	}
	if r.Code != 1 {
		t.Errorf("sweep: got exit code %d, want 1", r.Code)
	}
	told("the summary of sweep", r.Stderr)
	told("results", p.Master.Try("results", "last").Stderr)
	for _, class := range []string{"exit", "oom", "port"} {
		if n := strings.Count(p.Hosts[2].Must("trials", "last", "--class", class, "--json"),
			`"class":"`+class+`"`); n != each {
			t.Errorf("trials --class %s: got %d, want %d", class, n, each)
		}
	}
	if err := os.WriteFile(mended, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	worker.Try("retry", "last", "--class", "port") // it ends with 1: the others are still failed
	again := p.Master.Try("results", "last").Stderr
	if strings.Contains(again, "× port") || !strings.Contains(again, groups[0]) || !strings.Contains(again, groups[1]) {
		t.Errorf("after the retry of port: got\n%s", again)
	}
	if n := strings.Count(p.Master.Must("trials", "last", "--state", "succeeded", "--json"),
		`"state":"succeeded"`); n != each {
		t.Errorf("after the retry of port: %d trials succeeded, want %d", n, each)
	}
}
