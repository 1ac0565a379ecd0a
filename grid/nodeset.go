package grid

import (
	"path"
	"slices"
	"strings"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
)

// NodeSet is the set of nodes that can run the trials of a task, as comma-separated names and
// labels: "gpu*,label=a100" contains all nodes whose name begins with gpu, and those with the label
// a100. The empty set stands for all nodes.
type NodeSet string

const (
	labelMark = "label="
	// maxNodeSet bounds the names and labels in a set, and MaxLabels the labels of a node.
	maxNodeSet = 64
	MaxLabels  = 32
)

var (
	nodePattern = lazyregexp.New(`^[A-Za-z0-9_*?-]{1,128}$`)
	nodeLabel   = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// NodeSetOf joins names and labels.
func NodeSetOf(all []string) NodeSet { return NodeSet(strings.Join(all, ",")) }

// List returns the names and labels.
func (s NodeSet) List() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), ",")
}

// Has reports whether a node with these labels is in the set.
func (s NodeSet) Has(node NodeID, labels []string) bool {
	return s == "" || slices.ContainsFunc(s.List(), func(one string) bool {
		if label, ok := strings.CutPrefix(one, labelMark); ok {
			return slices.Contains(labels, label)
		}
		match, err := path.Match(one, string(node))
		return err == nil && match
	})
}

// String returns the set for a person.
func (s NodeSet) String() string { return strings.Join(s.List(), ", ") }

// Check returns an error if the set is invalid.
func (s NodeSet) Check() error {
	all := s.List()
	if len(all) > maxNodeSet {
		return problem.Errorf("Give the nodes a label in their node.yaml, and name that.",
			"nodes has %d entries, more than %d", len(all), maxNodeSet)
	}
	for _, one := range all {
		label, isLabel := strings.CutPrefix(one, labelMark)
		if pattern := nodePattern; isLabel && CheckNodeLabel(label) != nil || !isLabel &&
			!pattern.Get().MatchString(one) {
			return problem.Errorf(
				"Write names as members lists them, which may have * and ?, and labels like label=a100.",
				"nodes has %.80q", one)
		}
	}
	return nil
}

// CheckNodeLabel returns an error if label cannot be a node's label.
func CheckNodeLabel(label string) error {
	if !nodeLabel.Get().MatchString(label) {
		return problem.Errorf("Write letters, digits, '.', '_' and '-'.", "the label %.80q is not valid", label)
	}
	return nil
}
