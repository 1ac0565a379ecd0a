package monitor

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/command"
	"mlfnode/node/api"
)

// runScript answers with instructions to run a trial without mlfnode. They do not reveal the
// environment of the submitting shell, or what its user added to it. Viewers may not call it,
// because words of the command may be secrets, too.
func (h *trialHandlers) runScript(r *http.Request) (api.ByHand, error) {
	var none api.ByHand
	s, index, err := h.lookup.trial(r)
	if err != nil {
		return none, err
	}
	number, err := attemptNumber(r.FormValue("attempt"))
	if err != nil {
		return none, err
	}
	id := grid.TrialID{Sweep: s.ID, Index: index}
	attempts, err := h.history.Attempts(r.Context(), id)
	if err != nil {
		return none, fmt.Errorf("find attempts: %w", err)
	}
	params, err := s.Space.At(index)
	if err != nil {
		return none, err
	}
	v := api.ByHand{
		Trial: id.String(), Project: s.Project, Bundle: s.Bundle, Image: s.Task.Image,
		Command: s.Task.Template().Argv(params),
		Setup:   append([]string{}, s.Task.Setup...), Env: []api.Variable{}, Hidden: []string{},
	}
	if s.Pinned != "" {
		v.Image = s.Pinned
	}
	devices := []string(nil)
	if a := pickAttempt(attempts, number); a != nil {
		v.Attempt, v.Node, v.Bundle, devices = a.Number, a.Node, s.BundleAt(index, a.Started), a.Result.Devices
	}
	hidden := hiddenVariables(s)
	for _, name := range slices.Sorted(maps.Keys(s.Task.Env)) {
		if !hidden[name] {
			v.Env = append(v.Env, api.Variable{Name: name, Value: strings.ReplaceAll(s.Task.Env[name], "$$", "$")})
		}
	}
	v.Hidden = append(v.Hidden, slices.Sorted(maps.Keys(hidden))...)
	set := func(name, value string) { v.Env = append(v.Env, api.Variable{Name: name, Value: value}) }
	if len(devices) > 0 {
		set("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
		set("CUDA_VISIBLE_DEVICES", strings.Join(devices, ","))
	}
	set("MLF_SWEEP", string(id.Sweep))
	set("MLF_TRIAL", id.String())
	set("MLF_ATTEMPT", strconv.Itoa(max(1, v.Attempt)))
	set("MLF_PARAMS", string(params.AppendJSON(nil)))
	for _, f := range runFolders {
		set(f.Name, f.Value)
	}
	v.Script = shellScript(&v, devices)
	return v, nil
}

// hiddenVariables returns the variables that a sweep adds to the environment of its trials and
// whose values are not revealed.
func hiddenVariables(s *grid.Sweep) map[string]bool {
	hidden := map[string]bool{}
	for _, kv := range s.EnvironAdded {
		name, _, _ := strings.Cut(kv, "=")
		// earlier versions accepted any name, which would be code in a script
		hidden[name] = grid.CheckVariable(name) == nil
	}
	maps.DeleteFunc(hidden, func(_ string, valid bool) bool { return !valid })
	for name, value := range s.Task.Env {
		// secrets, as far as can be told, and values from the environment of the submission
		if secretName.MatchString(name) || secretValue.MatchString(value) ||
			strings.Contains(strings.ReplaceAll(value, "$$", ""), "$") {
			hidden[name] = true
		}
	}
	return hidden
}

// runFolders are the variables with paths for what a program writes.
var runFolders = []api.Variable{{Name: "MLF_OUT", Value: "$d/out"}, {Name: "MLF_METRICS", Value: "$d/metrics.jsonl"},
	{Name: "MLF_CACHE", Value: "$d/cache"}}

var (
	secretName  = regexp.MustCompile(`(?i)key|token|secret|pass|pwd|credential|auth|cookie|private`)
	secretValue = regexp.MustCompile(`://[^/\s]*@`)
)

// shellScript returns the same instructions as a shell script.
func shellScript(v *api.ByHand, devices []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# in the folder of the project %s", v.Project)
	if v.Bundle != "" {
		fmt.Fprintf(&b, ", with its files as they were (SHA-256 %s)", shortDigest(v.Bundle))
	}
	b.WriteString("\n")
	for _, name := range v.Hidden {
		fmt.Fprintf(&b, ": \"${%s:?export it as it was}\"\n", name)
	}
	b.WriteString("d=$(mktemp -d) && mkdir \"$d/out\" \"$d/cache\"\n")
	words := []string{"env"}
	if v.Image != "" {
		words = []string{"docker run --rm", `-v "$PWD:$PWD" -w "$PWD" -v "$d:$d"`}
		if len(devices) > 0 {
			words = append(words, "--gpus "+command.Quote(`"device=`+strings.Join(devices, ",")+`"`))
		}
		for _, name := range v.Hidden {
			words = append(words, "-e "+name)
		}
	}
	for _, e := range v.Env {
		word := e.Name + "=" + command.Quote(e.Value)
		if slices.Contains(runFolders, e) {
			word = e.Name + `="` + e.Value + `"`
		}
		if v.Image != "" {
			word = "-e " + word
		}
		words = append(words, word)
	}
	prefix := strings.Join(words, " \\\n  ")
	if v.Image != "" {
		prefix += " \\\n  " + command.Quote(v.Image)
	}
	if len(v.Setup) > 0 {
		fmt.Fprintf(&b, "%s \\\n  %s\n", prefix, command.Quote(v.Setup...))
	}
	fmt.Fprintf(&b, "%s \\\n  %s\n", prefix, command.Quote(v.Command...))
	return b.String()
}
