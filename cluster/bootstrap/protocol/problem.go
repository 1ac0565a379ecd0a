package protocol

import (
	"errors"
	"fmt"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
)

// Problem says what keeps a machine from being used, and what to do about it.
type Problem struct {
	Cause string `json:"cause"`
	Cure  string `json:"cure,omitempty"`
}

// Error returns the cause.
func (p *Problem) Error() string { return p.Cause }

// ProblemOf returns the Problem in an error's chain, or one with the error's text as its cause.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return &Problem{Cause: err.Error()}
}

// OtherRole reports a machine whose role differs from the one in cluster.yaml.
func OtherRole(node string, has, wanted grid.NodeRole) *Problem {
	p := &Problem{Cause: fmt.Sprintf("this machine is the %s %s of its cluster, but cluster.yaml makes it a %s", has,
		node, wanted)}
	if has == grid.Master {
		p.Cure = "leave it the master, because it keeps the results; to move them to another machine: mlfnode move-master HOST"
	} else {
		p.Cure = fmt.Sprintf(
			"a worker keeps no results, so set it up again: mlfnode down %s --purge, then mlfnode up; "+
				"to make it the master: mlfnode move-master %s", node, node)
	}
	return p
}

// OtherCluster reports a machine that is a node of another cluster. The address of that cluster's
// master may be empty.
func OtherCluster(node, master string) *Problem {
	at := ""
	if master != "" {
		at = ", whose master is at " + Line(master)
	}
	return &Problem{
		Cause: fmt.Sprintf("this machine is the node %s of another cluster%s; its trials would end", node, at),
		Cure:  "leave it out; or use another folder there with -r, and other ports; or take it away from that cluster with --take",
	}
}

// maxLine is how long a line of text from another machine may be.
const maxLine = 1 << 10

// Line makes text from another machine a single line that is safe to show.
func Line(text string) string {
	return printable.Line([]byte(printable.Clip(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "), maxLine)))
}
