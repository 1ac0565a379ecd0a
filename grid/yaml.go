package grid

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
)

// The limits keep hostile files from costing time: a file that people write is far below them.
const (
	MaxFile      = 4 << 20 // bytes of a parameters file or a project.yaml
	maxYAMLDepth = 100     // lists and maps in each other
)

// ParseYAML reads one YAML document into nodes and decodes nothing. It gives nil for a file without content. The error is of
// type Problems; name stands in it as the file's name.
func ParseYAML(name string, data []byte) (*yaml.Node, error) {
	if p := checkYAML(name, data); p != nil {
		return nil, Problems{*p}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	doc, err := nextDocument(dec)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, Problems{syntaxProblem(name, data, err)}
	}
	second, err := nextDocument(dec)
	switch {
	case err == nil:
		return nil, Problems{ProblemAt(name, second, "a second document starts here", "Keep one document in the file, without '---' between parts.")}
	case !errors.Is(err, io.EOF):
		return nil, Problems{syntaxProblem(name, data, err)}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Value == "" && isPlain(root) {
		return nil, nil
	}
	return root, nil
}

// nextDocument turns a panic of the YAML library, of which fuzzing has found some over the years, into an error.
func nextDocument(dec *yaml.Decoder) (doc *yaml.Node, err error) {
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

// checkYAML refuses at once what could keep the YAML library busy.
func checkYAML(name string, data []byte) *Problem {
	if len(data) > MaxFile {
		f := tooLong("Write long rows of numbers as an interval, like {start: 0, end: 1000000}.")
		return &Problem{name, 1, 1, f.msg, f.hint}
	}
	if !utf8.Valid(data) {
		line, col := badUTF8(data)
		return &Problem{name, line, col, "the file is not valid UTF-8", "Save it as UTF-8."}
	}
	if line, col, deep := tooDeep(data); deep {
		return &Problem{name, line, col, fmt.Sprintf("lists and maps lie in each other more than %d deep", maxYAMLDepth), "Write it flat."}
	}
	return nil
}

// byLine is what to do with more values than fit.
const byLine = "Or keep the values in a file of the project and sweep over its lines: line=1:40001 for 40,000 of them, with $(sed -n {line}p FILE) in a command of sh -c."

// tooLong is what is wrong with a file of more than MaxFile bytes.
func tooLong(advice string) *flaw {
	return flawf(advice+" "+byLine, "the file has more than %d MiB", MaxFile>>20)
}

func badUTF8(data []byte) (line, col int) {
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

// tooDeep counts brackets, leading dashes and steps of indentation. It may count brackets in texts too, which is harmless
// below such a limit.
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
		if len(indents)-1 > maxYAMLDepth || marks > maxYAMLDepth {
			return line, indent + 1, true
		}
		for i, c := range body {
			switch c {
			case '[', '{':
				flow++
			case ']', '}':
				flow = max(flow-1, 0)
			}
			if flow > maxYAMLDepth {
				return line, indent + i + 1, true
			}
		}
	}
	return 0, 0, false
}

// syntaxProblem places an error of the YAML library, which knows the line only.
func syntaxProblem(name string, data []byte, err error) Problem {
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
		return Problem{name, at, col, "a tab stands where YAML wants spaces", "Use spaces to indent."}
	}
	line = min(max(line, 1), len(lines))
	text := lines[line-1]
	col := len(text) - len(bytes.TrimLeft(text, " ")) + 1
	hint := "Check this line and those before it for a missing colon, quote, bracket or space."
	if strings.HasPrefix(msg, "unknown anchor") {
		hint = "Mark the value that is meant with & and this name, above its first use, or put the text in quotes."
	}
	return Problem{name, line, col, "this is not valid YAML: " + msg, hint}
}

// tabAt finds the first tab in an indentation.
func tabAt(lines [][]byte) (line, col int, ok bool) {
	for i, text := range lines {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if k := bytes.IndexByte(indent, '\t'); k >= 0 && len(bytes.TrimSpace(text)) > 0 {
			return i + 1, k + 1, true
		}
	}
	return 0, 0, false
}

// isPlain reports whether a scalar was written without quotes, block marks and tags.
func isPlain(n *yaml.Node) bool {
	const marked = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle | yaml.TaggedStyle
	return n.Style&marked == 0
}
