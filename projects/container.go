package projects

import (
	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
)

func (s *schema) image(what string, n *yaml.Node, t *task) {
	ref, ok := s.text(what, n)
	if !ok || ref == "" { // an empty name means no container
		return
	}
	if err := grid.CheckImage(ref); err != nil {
		s.report(n, "", "%s", err)
	}
	t.Image = ref
}

func (s *schema) container(what string, n *yaml.Node, t *task) {
	c := &grid.Container{}
	t.Container, t.places[what] = c, n
	s.fields(what, n, "{shm: 8GiB}", s.containerFields(c))
}

func (s *schema) containerFields(c *grid.Container) map[string]field {
	checked := func(to *string, check func(string) error) func(what string, n *yaml.Node) {
		return func(what string, n *yaml.Node) {
			v, ok := s.filled(what, n)
			if !ok {
				return
			}
			if err := check(v); err != nil {
				s.report(n, "", "%s", err)
			}
			*to = v
		}
	}
	return map[string]field{
		"pull":    {jsonschema.Choice(grid.PullPolicies()...), checked(&c.Pull, grid.CheckPull)},
		"network": {jsonschema.Text, checked(&c.Network, grid.CheckNetwork)},
		"gpus":    {jsonschema.Choice(grid.GPUModes()...), checked(&c.GPUs, grid.CheckGPUMode)},
		"shm":     {jsonschema.Size, func(what string, n *yaml.Node) { s.size(what, n, &c.Shm) }},
		"ulimits": {jsonschema.Map(jsonschema.Any(jsonschema.Count, jsonschema.Text)), func(what string, n *yaml.Node) { s.ulimits(what, n, c) }},
		"mounts":  {jsonschema.Texts, func(what string, n *yaml.Node) { s.mounts(what, n, c) }},
		"entrypoint": {jsonschema.Texts, func(what string, n *yaml.Node) {
			program, _ := s.texts(what, n, `["/entry.sh"], or [] for none`)
			program = append([]string{}, program...)
			c.Entrypoint = &program
		}},
	}
}

func (s *schema) ulimits(what string, n *yaml.Node, c *grid.Container) {
	s.entries(what, n, "{nofile: 65536}", func(key, value *yaml.Node) {
		text, ok := s.filled(key.Value, value)
		if !ok {
			return
		}
		u, err := grid.ParseUlimit(key.Value, text)
		if err != nil {
			s.report(value, "", "%s", err)
		}
		c.Ulimits = append(c.Ulimits, u)
	})
}

func (s *schema) mounts(what string, n *yaml.Node, c *grid.Container) {
	texts, nodes := s.texts(what, n, `["/data:ro"]`)
	for i, text := range texts {
		m, err := grid.ParseMount(text)
		if err != nil {
			s.report(nodes[i], "", "%s", err)
		}
		c.Mounts = append(c.Mounts, m)
	}
}
