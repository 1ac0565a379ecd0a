// Package jsonschema builds schemas for values in JSON Schema, draft 7, with descriptions, for
// editors that complete and check the YAML files that people write. A schema accepts at least what
// the parser accepts: the parser alone enforces rules such as which fields may be combined.
package jsonschema

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Form is the schema of a value, as the keywords of JSON Schema.
type Form map[string]any

// The forms of scalars. In YAML, numbers and booleans may be unquoted where a text is meant, and
// numbers may be quoted.
var (
	Text     = Form{"type": []string{"string", "number", "boolean"}}
	Bool     = Form{"type": "boolean"}
	Texts    = List(Text)
	Count    = Any(Form{"type": "integer", "minimum": 0}, Pattern(`^[0-9]+$`))
	Positive = Any(Form{"type": "integer", "minimum": 1}, Pattern(`^0*[1-9][0-9]*$`))
	Amount   = Any(Form{"type": "number", "minimum": 0}, Pattern(`^[0-9]+(\.[0-9]+)?$`))
	Duration = Any(Form{"type": "number", "minimum": 0},
		Pattern(`^([0-9]+(\.[0-9]+)?|\+?([0-9.]+(ns|us|µs|ms|s|m|h|d))+)?$`))
	Size = Any(Form{"type": "integer", "minimum": 0}, Pattern(`^[0-9]+(\.[0-9]+)? ?([kKMGTP]i?)?B?$`))
)

// Above returns the form of a number that is larger than the bound.
func Above(bound float64) Form { return Form{"type": "number", "exclusiveMinimum": bound} }

// Pattern returns the form of a text that matches the regular expression.
func Pattern(expression string) Form { return Form{"type": "string", "pattern": expression} }

// Any returns the form of a value that has at least one of the forms.
func Any(forms ...Form) Form { return Form{"anyOf": forms} }

// Choice returns the form of a value that is one of the texts.
func Choice[T ~string](texts ...T) Form { return Form{"enum": texts} }

// List returns the form of a list whose values have the form of.
func List(of Form) Form { return Form{"type": "array", "items": of} }

// Map returns the form of a map with any keys, whose values have the form of.
func Map(of Form) Form { return Form{"type": "object", "additionalProperties": of} }

// Object returns the form of a map with these keys and no others, all of which are optional.
func Object(fields map[string]Form) Form {
	return Form{"type": "object", "properties": fields, "additionalProperties": false}
}

// Document encodes the form of a file as a schema. explain returns the description of a field, or
// "", given its path from the root: the dot-separated names of the fields, without the keys of a
// Map.
func Document(title string, root Form, explain func(path string) string) ([]byte, error) {
	described := root.explained("", explain)
	described["$schema"], described["title"] = "http://json-schema.org/draft-07/schema#", title
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(described); err != nil {
		return nil, fmt.Errorf("encode the schema of %s: %w", title, err)
	}
	return text.Bytes(), nil
}

// explained returns the form with descriptions. path is empty or ends with a dot.
func (f Form) explained(path string, explain func(path string) string) Form {
	out := Form{}
	for key, v := range f {
		switch v := v.(type) {
		case map[string]Form:
			fields := map[string]Form{}
			for name, form := range v {
				fields[name] = form.explained(path+name+".", explain)
				if text := explain(path + name); text != "" {
					fields[name]["description"] = text
				}
			}
			out[key] = fields
		case Form:
			out[key] = v.explained(path, explain)
		case []Form:
			forms := make([]Form, len(v))
			for i, form := range v {
				forms[i] = form.explained(path, explain)
			}
			out[key] = forms
		default:
			out[key] = v
		}
	}
	return out
}
