package worker

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"mlfnode/grid"
)

// baseEnviron is what all attempts of a sweep share: the environment of the shell that submitted it, or else this node's,
// and the task's own variables.
func baseEnviron(s *grid.Sweep) []string {
	from := s.Environ
	if len(from) == 0 {
		from = os.Environ()
	}
	base := make([]string, 0, len(from)+len(s.Task.Env))
	known := map[string]string{}
	for _, kv := range from {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || ownVariable(key) {
			continue
		}
		known[key] = value
		base = append(base, kv)
	}
	for key, value := range s.Task.Env {
		expanded := os.Expand(value, func(name string) string { return known[name] })
		base = append(base, key+"="+expanded)
	}
	return base
}

// ownVariable reports whether the variable is set anew for each attempt.
func ownVariable(key string) bool {
	return strings.HasPrefix(key, "MLF_") || key == "PWD" || key == "OLDPWD"
}

// environ is the complete environment of the attempt. Later entries win over earlier ones.
func (a *attempt) environ(base []string, cache string) []string {
	params, err := json.Marshal(a.params)
	if err != nil {
		params = []byte("{}") // values are checked when a space is made
	}
	env := make([]string, len(base), len(base)+9)
	copy(env, base)
	return append(env,
		"PWD="+a.spool.work(),
		"MLF_SWEEP="+string(a.id.Sweep),
		"MLF_TRIAL="+a.id.String(),
		"MLF_ATTEMPT="+strconv.Itoa(a.number),
		"MLF_PARAMS="+string(params),
		"MLF_OUT="+a.spool.out(),
		"MLF_METRICS="+a.spool.metrics(),
		"MLF_CACHE="+cache,
	)
}
