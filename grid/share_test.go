package grid

import "testing"

func TestTaskCheckShare(t *testing.T) {
	for _, c := range []struct {
		share []string
		links []Link
		want  bool
	}{
		{[]string{"data/**", "/mnt/x"}, []Link{{To: "/mnt/x"}, {"data", "/mnt/x"}, {"a/b", "/"}}, true},
		{[]string{""}, nil, false}, {[]string{"a\x00b"}, nil, false}, {make([]string, maxShared+1), nil, false},
		{nil, []Link{{"data", "x"}}, false}, {nil, []Link{{"data", ""}}, false},
		{nil, []Link{{"../data", "/x"}}, false},
		{nil, []Link{{"/data", "/x"}}, false}, {nil, []Link{{".", "/x"}}, false},
		{nil, []Link{{"a/../b", "/x"}}, false}, {nil, []Link{{"a", "/x\x00"}}, false},
	} {
		task := Task{Name: "t", Command: []string{"x"}, Resources: Resources{CPUs: One}, Share: c.share, Links: c.links}
		if err := task.Check(); (err == nil) != c.want {
			t.Errorf("%.3q %v: got %v, want accepted = %v", c.share, c.links, err, c.want)
		}
	}
}
