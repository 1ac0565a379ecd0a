// Package yamlfile reads YAML files that users wrote, and reports errors with their lines: into
// nodes, within limits that bound the time that a hostile file can take, or strictly into a struct.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/problem"
)

// The limits bound the time that a hostile file can take. Files that people write are far below
// them.
const (
	MaxFile  = 4 << 20 // bytes of a parameters file or a project.yaml
	maxDepth = 100     // nesting of lists and maps
)

// Parse parses one YAML document into nodes without decoding them. It returns nil for a file
// without content. The error is of type problem.List and refers to the file as name.
func Parse(name string, data []byte) (*yaml.Node, error) {
	if p := Check(name, data); p != nil {
		return nil, problem.List{*p}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	doc, err := Decode(dec)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, problem.List{syntaxProblem(name, data, err)}
	}
	second, err := Decode(dec)
	switch {
	case err == nil:
		return nil, problem.List{ProblemAt(name, second, "a second document starts here",
			"Keep one document in the file, without '---' between parts.")}
	case !errors.Is(err, io.EOF):
		return nil, problem.List{syntaxProblem(name, data, err)}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Value == "" && IsPlain(root) {
		return nil, nil
	}
	return root, nil
}

// Decode decodes the next document. A panic of the YAML library, in which fuzzing has found several
// over the years, becomes an error.
func Decode(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	doc = new(yaml.Node)
	if err := dec.Decode(doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return nil, io.EOF
	}
	return doc, nil
}

// Check quickly rejects content that could keep the YAML library busy.
func Check(name string, data []byte) *problem.InFile {
	if len(data) > MaxFile {
		f := TooLong("Write long rows of numbers as an interval, like {start: 0, end: 1000000}.")
		return &problem.InFile{File: name, Line: 1, Col: 1, Msg: f.Msg, Hint: f.Hint}
	}
	if !utf8.Valid(data) {
		line, col := InvalidUTF8(data)
		return &problem.InFile{File: name, Line: line, Col: col, Msg: "the file is not valid UTF-8",
			Hint: "Save it as UTF-8."}
	}
	if line, col, deep := tooDeep(data); deep {
		return &problem.InFile{File: name, Line: line, Col: col,
			Msg: fmt.Sprintf("lists and maps are nested more than %d deep", maxDepth), Hint: "Write it flat."}
	}
	return nil
}

// byLine is the advice for more values than a file can hold.
const byLine = "Or keep the values in a file of the project and sweep over its lines: line=1:40001 for 40,000 of " +
	"them, with $(sed -n {line}p FILE) in a command of sh -c."

// TooLong returns the problem of a file larger than MaxFile.
func TooLong(advice string) *problem.Error {
	return problem.Errorf(advice+" "+byLine, "the file has more than %d MiB", MaxFile>>20)
}

// InvalidUTF8 returns the position of the first byte that is not valid UTF-8.
func InvalidUTF8(data []byte) (line, col int) {
	line, col = 1, 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			return line, col
		case r == '\n':
			line, col = line+1, 1
		default:
			col++
		}
		data = data[n:]
	}
	return line, col
}

// tooDeep counts brackets, leading dashes and levels of indentation. It also counts brackets in
// strings, which does no harm with so high a limit.
func tooDeep(data []byte) (line, col int, deep bool) {
	flow := 0
	indents := []int{0}
	for text := range bytes.Lines(data) {
		line++
		body := bytes.TrimLeft(text, " -?\t")
		indent := len(text) - len(body)
		marks := bytes.Count(text[:indent], []byte("- ")) + bytes.Count(text[:indent], []byte("? "))
		for len(indents) > 1 && indents[len(indents)-1] >= indent {
			indents = indents[:len(indents)-1]
		}
		if len(bytes.TrimSpace(body)) > 0 {
			indents = append(indents, indent)
		}
		if len(indents)-1 > maxDepth || marks > maxDepth {
			return line, indent + 1, true
		}
		for i, c := range body {
			switch c {
			case '[', '{':
				flow++
			case ']', '}':
				flow = max(flow-1, 0)
			}
			if flow > maxDepth {
				return line, indent + i + 1, true
			}
		}
	}
	return 0, 0, false
}

// syntaxProblem adds a column to an error of the YAML library, which has only a line.
func syntaxProblem(name string, data []byte, err error) problem.InFile {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		msg = msg[len(m[0]):]
	}
	if regexp.MustCompile(`^did not find expected (<|node|key|'-'|',')`).MatchString(msg) {
		line++ // yaml.v3 counts the lines of its parser's errors from 0, those of its scanner's from 1
	}
	lines := bytes.Split(data, []byte("\n"))
	if at, col, ok := tabAt(lines); ok && strings.Contains(msg, "cannot start any token") {
		return problem.InFile{File: name, Line: at, Col: col, Msg: "a tab is used where YAML requires spaces",
			Hint: "Use spaces to indent."}
	}
	line = min(max(line, 1), len(lines))
	text := lines[line-1]
	col := len(text) - len(bytes.TrimLeft(text, " ")) + 1
	hint := "Check this line and those before it for a missing colon, quote, bracket or space."
	if strings.HasPrefix(msg, "unknown anchor") {
		hint = "Mark the value that is meant with & and this name, above its first use, or put the text in quotes."
	}
	return problem.InFile{File: name, Line: line, Col: col, Msg: "this is not valid YAML: " + msg, Hint: hint}
}

// tabAt returns the position of the first tab in an indentation.
func tabAt(lines [][]byte) (line, col int, ok bool) {
	for i, text := range lines {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if k := bytes.IndexByte(indent, '\t'); k >= 0 && len(bytes.TrimSpace(text)) > 0 {
			return i + 1, k + 1, true
		}
	}
	return 0, 0, false
}

// Resolve returns the value that an alias refers to, and any other node unchanged.
func Resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// IsPlain reports whether a scalar was written without quotes, block indicators and tags.
func IsPlain(n *yaml.Node) bool {
	const marked = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle |
		yaml.TaggedStyle
	return n.Style&marked == 0
}

// ProblemAt returns a problem at the position of a YAML node.
func ProblemAt(file string, n *yaml.Node, msg, hint string) problem.InFile {
	return problem.InFile{File: file, Line: n.Line, Col: n.Column, Msg: msg, Hint: hint}
}
