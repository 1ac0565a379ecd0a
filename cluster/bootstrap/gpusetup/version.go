package gpusetup

import (
	"strconv"
	"strings"
)

// older compares versions number by number: "1.17.8-1" is older than "1.18". What is not a number ends
// a version.
func older(a, b string) bool {
	x, y := versionNumbers(a), versionNumbers(b)
	for i := range max(len(x), len(y)) {
		var p, q int
		if i < len(x) {
			p = x[i]
		}
		if i < len(y) {
			q = y[i]
		}
		if p != q {
			return p < q
		}
	}
	return false
}

// versionNumbers reads the numbers of a version up to its "-", "~" or "+".
func versionNumbers(version string) []int {
	if i := strings.IndexAny(version, "-~+ "); i >= 0 {
		version = version[:i]
	}
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		all = append(all, n)
	}
	return all
}
