package projects

import (
	"bytes"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// scalar returns a text, quoted if YAML would read it as something else.
func scalar(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	// A block can't hold text that needs escapes: leading white space counts as its indentation,
	// and readers change some line ends.
	needsEscapes := strings.TrimLeftFunc(s, unicode.IsSpace) != s ||
		strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) })
	if n.Tag == "!!str" && needsEscapes {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// unquoted returns a scalar that is written without quotes where possible.
func unquoted(text string) *yaml.Node {
	if n := scalar(text); n.Style != 0 {
		return n
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text}
}

// sequence returns a list on one line.
func sequence(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: items}
}

// sequenceOf returns a list of texts on one line.
func sequenceOf(texts []string) *yaml.Node {
	n := sequence()
	for _, text := range texts {
		n.Content = append(n.Content, scalar(text))
	}
	return n
}

// flowMap returns a map on one line, whose keys and values alternate.
func flowMap(entries ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle, Content: entries}
}

// mapping returns an empty map.
func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

// appendEntry appends a key with its value to a map.
func appendEntry(m *yaml.Node, key string, v *yaml.Node) {
	m.Content = append(m.Content, scalar(key), v)
}

// encoded returns a document in YAML, after a heading.
func encoded(heading string, n *yaml.Node) ([]byte, error) {
	b := bytes.NewBufferString(heading)
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	err := enc.Encode(n)
	return b.Bytes(), err
}
