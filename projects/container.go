package projects

import (
	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
)

// containerFields reads the settings of a task's container into c.
func containerFields(c *grid.Container) map[string]field {
	checked := func(to *string, check func(string) error) func(yamlValue) {
		return func(v yamlValue) {
			if text, ok := v.filled(); ok {
				v.reportError(check(text))
				*to = text
			}
		}
	}
	return map[string]field{
		"pull":    {jsonschema.Choice(grid.PullPolicies()...), checked(&c.Pull, grid.CheckPull)},
		"network": {jsonschema.Text, checked(&c.Network, grid.CheckNetwork)},
		"gpus":    {jsonschema.Choice(grid.GPUModes()...), checked(&c.GPUs, grid.CheckGPUMode)},
		"shm":     sizeField(&c.Shm),
		"ulimits": {jsonschema.Map(jsonschema.Any(jsonschema.Count, jsonschema.Text)), func(v yamlValue) {
			v.entries("{nofile: 65536}", func(_, limit yamlValue) {
				if text, ok := limit.filled(); ok {
					u, err := grid.ParseUlimit(limit.what, text)
					limit.reportError(err)
					c.Ulimits = append(c.Ulimits, u)
				}
			})
		}},
		"mounts": {jsonschema.Texts, func(v yamlValue) {
			texts, values := v.texts(`["/data:ro"]`)
			for i, text := range texts {
				m, err := grid.ParseMount(text)
				values[i].reportError(err)
				c.Mounts = append(c.Mounts, m)
			}
		}},
		"entrypoint": {jsonschema.Texts, func(v yamlValue) {
			program, _ := v.texts(`["/entry.sh"], or [] for none`)
			program = append([]string{}, program...)
			c.Entrypoint = &program
		}},
	}
}
