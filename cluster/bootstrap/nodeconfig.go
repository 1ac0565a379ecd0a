package bootstrap

import (
	"bytes"
	"fmt"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"

	"gopkg.in/yaml.v3"
)

// reservedSettings are the settings of node.yaml that follow from the cluster and may not be set.
var reservedSettings = []string{"state", "node", "seed", "worker"}

// nodeConfig returns the host's node.yaml without its seed.
func (c *Cluster) nodeConfig(h *Host, p protocol.Layout) (string, error) {
	all := &yaml.Node{Kind: yaml.MappingNode}
	setKey(all, "state", p.State())
	setKey(all, "node", h.Name)
	if h.HasRole(grid.Master) {
		setKey(all, "worker", fmt.Sprint(h.HasRole(grid.Worker)))
	}
	for _, from := range []*yaml.Node{&c.Settings, &h.Settings} {
		for _, key := range reservedSettings {
			if at := findKey(from, key); at != nil {
				return "", fmt.Errorf("line %d: %s follows from the hosts and their roles and can't be set here",
					at.Line, key)
			}
		}
		if err := merge(all, from); err != nil {
			return "", err
		}
	}
	var b bytes.Buffer
	b.WriteString(protocol.NodeHeading)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(all); err != nil {
		return "", fmt.Errorf("write node.yaml: %w", err)
	}
	return b.String(), enc.Close()
}

// merge overrides settings with others; in maps, key by key.
func merge(into, from *yaml.Node) error {
	if from.IsZero() || from.Tag == "!!null" {
		return nil
	}
	if from.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: settings are written as in node.yaml, a line `key: value` for each", from.Line)
	}
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		at := findKey(into, key.Value)
		switch {
		case at == nil:
			into.Content = append(into.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key.Value}, cloneNode(value))
		case at.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode:
			if err := merge(at, value); err != nil {
				return err
			}
		default:
			*at = *cloneNode(value)
		}
	}
	return nil
}

// cloneNode copies a value, so that merging into it leaves the cluster alone.
func cloneNode(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = nil
	for _, inner := range n.Content {
		c.Content = append(c.Content, cloneNode(inner))
	}
	return &c
}

// setKey adds a setting, which YAML reads as a bool if it is true or false, and as text otherwise.
func setKey(into *yaml.Node, key, value string) {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: value}
	if value != "true" && value != "false" {
		n.SetString(value)
	}
	into.Content = append(into.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, n)
}

func findKey(in *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(in.Content); i += 2 {
		if in.Content[i].Value == key {
			return in.Content[i+1]
		}
	}
	return nil
}

// ports are those of a node, as its settings have them.
type ports struct {
	API    int `yaml:"api"`
	NATS   int `yaml:"nats"`
	Gossip int `yaml:"gossip"`
}

// ports returns the ports of a host's node.
func (c *Cluster) ports(h *Host) (ports, error) {
	text, err := c.nodeConfig(h, protocol.Layout{Root: "/"})
	if err != nil {
		return ports{}, err
	}
	s := struct {
		Ports ports `yaml:"ports"`
	}{ports{API: 7420, NATS: 7421, Gossip: 7422}}
	if err := yaml.Unmarshal([]byte(text), &s); err != nil {
		return ports{}, fmt.Errorf("read the ports of %s: %w", h.Name, err)
	}
	return s.Ports, nil
}
