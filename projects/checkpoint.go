package projects

import (
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
)

// checkpointFields reads how a task saves its state into c. A value that a task may not have is
// reported, and the field keeps its default.
func checkpointFields(c *grid.Checkpoint) map[string]field {
	checked := func(f field) field {
		return field{f.form, func(v yamlValue) {
			before, problems := *c, len(v.file.problems)
			f.read(v)
			if len(v.file.problems) == problems {
				v.reportError(c.Check())
			}
			if len(v.file.problems) > problems {
				*c = before
			}
		}}
	}
	return map[string]field{
		"signal": checked(field{jsonschema.Text, func(v yamlValue) {
			text, _ := v.filled()
			c.Signal = strings.TrimPrefix(strings.ToUpper(text), "SIG")
		}}),
		"grace":    checked(durationField(&c.Grace)),
		"every":    checked(durationField(&c.Every)),
		"quiet":    checked(durationField(&c.Quiet)),
		"max_size": checked(sizeField(&c.MaxSize)),
		"repeats": checked(field{jsonschema.Count, func(v yamlValue) {
			v.what = "checkpoint.repeats"
			into(&c.Repeats, parsed(strconv.Atoi, "", "Give a whole number."))(v)
		}}),
		"on_timeout": checked(field{jsonschema.Choice(grid.TimeoutFails, grid.TimeoutResumes),
			into(&c.OnTimeout, yamlValue.filled)}),
	}
}
