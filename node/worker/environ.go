package worker

import (
	"os"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// baseEnviron is what all attempts of a sweep share.
func baseEnviron(s *grid.Sweep) []string {
	return s.Environment(os.Environ(), func(name string) bool { return !ownVariable(name) })
}

// ownVariable reports whether the variable is set anew for each attempt.
func ownVariable(key string) bool {
	return strings.HasPrefix(key, "MLF_") || key == "PWD" || key == "OLDPWD"
}

// environ is the complete environment of the attempt. Later entries win over earlier ones: the executor merges them.
func (a *attempt) environ(base []string, cache string) []string {
	env := make([]string, len(base), len(base)+9)
	copy(env, base)
	return append(env,
		"PWD="+a.spool.work(),
		"MLF_SWEEP="+string(a.id.Sweep),
		"MLF_TRIAL="+a.id.String(),
		"MLF_ATTEMPT="+strconv.Itoa(a.number),
		string(a.params.AppendJSON([]byte("MLF_PARAMS="))),
		"MLF_OUT="+a.spool.out(),
		"MLF_METRICS="+a.spool.metrics(),
		"MLF_CACHE="+cache,
	)
}
