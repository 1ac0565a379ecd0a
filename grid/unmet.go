package grid

// Unmet is a setting of a task that this version understands and can't obey. Such a task is refused: a trial that runs
// without what it asked for would succeed with the wrong result.
type Unmet struct {
	Field string // of project.yaml
	Msg   string // one sentence without its period
	Hint  string // one sentence with its period
}

// Unmet lists what the task asks for and this version does not give.
func (t *Task) Unmet() []Unmet {
	var all []Unmet
	if t.Image != "" {
		all = append(all, Unmet{"image", "image asks for a container, but this version runs no containers: trials are plain processes of the node",
			"Leave the field out, and install what the program needs in a setup step."})
	}
	return all
}
