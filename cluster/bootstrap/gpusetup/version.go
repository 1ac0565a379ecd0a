package gpusetup

import (
	"slices"
	"strconv"
	"strings"
)

// older compares versions number by number: "1.17.8-1" is older than "1.18". What is not a number
// ends a version.
func older(a, b string) bool {
	x, y := versionNumbers(a), versionNumbers(b)
	for len(x) < len(y) {
		x = append(x, 0)
	}
	for len(y) < len(x) {
		y = append(y, 0)
	}
	return slices.Compare(x, y) < 0
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
