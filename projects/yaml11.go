package projects

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/yamlfile"
)

// oldValues notes the values of a parameter file that the old program read differently: PyYAML
// reads YAML 1.1, where 0777 is 511 and no is False. Problems of the file are reported when the
// project is loaded.
func (im *importer) oldValues(name string, data []byte) {
	root, err := yamlfile.Parse(name, data)
	if err != nil || root == nil || slices.ContainsFunc(im.seen, func(s string) bool { return s == name }) {
		return
	}
	im.seen = append(im.seen, name)
	const most = 20
	notes := 0
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				continue // a key
			}
			if c.Kind != yaml.ScalarNode {
				walk(c)
				continue
			}
			if old, ok := yaml11(c.Value); ok && c.Style == 0 && notes < most {
				im.addNote(name, c.Line,
					"%s was %s for the old program (YAML 1.1), and stays %s now; write %s for what it was",
					c.Value, old, c.Value, old)
				notes++
			}
		}
	}
	walk(root)
}

// The forms of scalars in YAML 1.1, as in PyYAML's resolver.
var (
	oldTruth   = lazyregexp.New(`^(?:yes|Yes|YES|on|On|ON)$`)
	oldFalse   = lazyregexp.New(`^(?:no|No|NO|off|Off|OFF)$`)
	oldBased   = lazyregexp.New(`^[-+]?(?:0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+)$`)
	oldDecimal = lazyregexp.New(`^[-+]?[1-9][0-9_]*$`)
	oldFloat   = lazyregexp.New(`^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?$`)
	oldSixty   = lazyregexp.New(`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`)
	oldMoment  = lazyregexp.New(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?$`)
)

// yaml11 returns Python's str of a plain scalar, if that differs from the scalar's text.
func yaml11(text string) (old string, ok bool) {
	digits := strings.ReplaceAll(text, "_", "")
	switch {
	case oldTruth.Get().MatchString(text):
		return "True", true
	case oldFalse.Get().MatchString(text):
		return "False", true
	case oldBased.Get().MatchString(text):
		n, ok := new(big.Int).SetString(digits, 0) // 0777 is octal here too
		return fmt.Sprint(n), ok && n.String() != strings.TrimPrefix(text, "+")
	case oldDecimal.Get().MatchString(text):
		return strings.TrimPrefix(digits, "+"), digits != text
	case oldFloat.Get().MatchString(text):
		return digits, digits != text
	case oldSixty.Get().MatchString(text):
		return sexagesimal(digits)
	case oldMoment.Get().MatchString(text):
		return "a timestamp, which Python formats differently", true
	}
	return "", false
}

// sexagesimal returns the number that text such as 1:30 or 1:30:20.5 denotes in base 60.
func sexagesimal(text string) (string, bool) {
	negative := strings.HasPrefix(text, "-")
	total := 0.0
	for part := range strings.SplitSeq(strings.TrimLeft(text, "+-"), ":") {
		v, err := strconv.ParseFloat(part, 64)
		if err != nil {
			return "", false
		}
		total = total*60 + v
	}
	if negative {
		total = -total
	}
	return strconv.FormatFloat(total, 'f', -1, 64), true
}
