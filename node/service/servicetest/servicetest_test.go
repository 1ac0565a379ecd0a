package servicetest

import "testing"

func TestSourceIn(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"deb822",
			"Types: deb\n# note\nURIs: http://one.example\nSuites: next next-updates\n\nTypes: deb\nURIs: http://two.example\nSuites: next-security\n",
			"http://one.example"},
		{"list", "# deb http://old.example next main\ndeb [arch=amd64] http://one.example next main\n",
			"http://one.example"},
		{"other suite", "deb http://one.example stable main\n", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		if got := sourceIn(tt.text, "next"); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
