package yamlfile

import (
	"bytes"
	"errors"
	"io"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/lazyregexp"
)

// The messages of yaml.v3 about a file that it cannot decode.
var (
	unknownField = lazyregexp.New(`^line (\d+): field (\S+) not found in type .*$`)
	wrongKind    = lazyregexp.New(`^line (\d+): cannot unmarshal .*$`)
	syntaxFault  = lazyregexp.New(`^yaml: line (\d+): (.*)$`)
)

// DecodeStrict decodes a document into v, and refuses keys that v has no field for; an empty file
// changes nothing. The error says what is wrong and where, with a line for each problem that starts
// with name. unknown is the message about a key, in which $2 stands for the key; misfit is the
// message about a value of the wrong kind.
func DecodeStrict(name string, data []byte, v any, unknown, misfit string) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(v)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	lines := []string{err.Error()}
	if e := (*yaml.TypeError)(nil); errors.As(err, &e) {
		lines = e.Errors
	}
	var problems []error
	for _, line := range lines {
		text := unknownField.Get().ReplaceAllString(line, name+":$1: "+unknown)
		text = wrongKind.Get().ReplaceAllString(text, name+":$1: "+misfit)
		text = syntaxFault.Get().ReplaceAllString(text, name+":$1: this is not valid YAML: $2")
		if text == line {
			text = name + ": " + line
		}
		problems = append(problems, errors.New(text))
	}
	return errors.Join(problems...)
}
