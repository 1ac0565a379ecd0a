package api

import "testing"

func TestWithPort(t *testing.T) {
	for text, want := range map[string]string{
		"hostA": "hostA:7420", "hostA:99": "hostA:99", "10.0.0.5": "10.0.0.5:7420",
		"[::1]:80": "[::1]:80", "::1": "[::1]:7420",
		"host.lab.org": "host.lab.org:7420",
		"":             "", "a b": "", "a:b": "", "a:0": "", "a:70000": "", "https://a": "", "a/b": "", "me@a": "",
	} {
		got, err := WithPort(text, 7420)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}
