package executor

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
)

func size(a *Attempt) (n uint64) {
	for _, list := range [][]string{a.Argv, a.Env} {
		for _, s := range list {
			n += uint64(len(s)) + 1
		}
	}
	return n
}

// ArgumentsTooLong says that an attempt has more arguments and environment than the kernel takes.
func ArgumentsTooLong(a *Attempt) string {
	return fmt.Sprintf("the argument list is too long: arguments and environment take %s; pass large values in a file", humanize.IBytes(size(a)))
}

// maxString is the longest argument or variable that the kernel takes, with its final zero (MAX_ARG_STRLEN in linux/binfmts.h).
const maxString = 32 * 4096

// CheckArguments gives the outcome of an attempt with an argument or a variable that no program can be given, where the kernel is
// not there to say so.
func CheckArguments(a *Attempt) (o Outcome, ok bool) {
	for _, list := range [][]string{a.Argv, a.Env} {
		for _, s := range list {
			if len(s) >= maxString {
				return Refused(grid.ClassStart, ArgumentsTooLong(a)), false
			}
		}
	}
	return o, true
}
