package executor

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
)

// ArgumentsTooLong is the reason of an attempt whose arguments and environment exceed the kernel's
// limit.
func ArgumentsTooLong(a *Attempt) string {
	var n uint64 // as the kernel counts them
	for _, list := range [][]string{a.Argv, a.Env} {
		for _, s := range list {
			n += uint64(len(s)) + 1
		}
	}
	return fmt.Sprintf("the argument list is too long: arguments and environment take %s; pass large values in a file",
		humanize.IBytes(n))
}

// maxString is the longest argument or variable that the kernel accepts, with its final zero
// (MAX_ARG_STRLEN in linux/binfmts.h).
const maxString = 32 * 4096

// CheckArguments checks for arguments and variables that are too long for any program, where the
// kernel does not. If there is one, it returns the attempt's outcome and false.
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
