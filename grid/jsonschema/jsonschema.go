// Package jsonschema builds forms of values as JSON Schema, draft 7, describes them, for editors that complete and check the
// YAML files that people write. A form takes at least what is read: rules like which fields go together are for the reader.
package jsonschema

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Form is the form of a value, as the keywords of JSON Schema.
type Form map[string]any

// The forms of values. In YAML numbers and truth values stand without quotes where a text is meant, and numbers may have quotes.
var (
	Text     = Form{"type": []string{"string", "number", "boolean"}}
	Bool     = Form{"type": "boolean"}
	Texts    = List(Text)
	Count    = Any(Form{"type": "integer", "minimum": 0}, Pattern(`^[0-9]+$`))
	Positive = Any(Form{"type": "integer", "minimum": 1}, Pattern(`^0*[1-9][0-9]*$`))
	Amount   = Any(Form{"type": "number", "minimum": 0}, Pattern(`^[0-9]+(\.[0-9]+)?$`))
	Duration = Any(Form{"type": "number", "minimum": 0}, Pattern(`^([0-9]+(\.[0-9]+)?|\+?([0-9.]+(ns|us|µs|ms|s|m|h|d))+)?$`))
	Size     = Any(Form{"type": "integer", "minimum": 0}, Pattern(`^[0-9]+(\.[0-9]+)? ?([kKMGTP]i?)?B?$`))
)

// Above is a number that is larger than the bound.
func Above(bound float64) Form { return Form{"type": "number", "exclusiveMinimum": bound} }

// Pattern is a text that the regular expression matches.
func Pattern(expression string) Form { return Form{"type": "string", "pattern": expression} }

// Any is a value that has one of the forms, or several.
func Any(forms ...Form) Form { return Form{"anyOf": forms} }

// Choice is one of the texts.
func Choice[T ~string](texts ...T) Form { return Form{"enum": texts} }

// List is a list of values of one form.
func List(of Form) Form { return Form{"type": "array", "items": of} }

// Map is a map with any keys, of values of one form.
func Map(of Form) Form { return Form{"type": "object", "additionalProperties": of} }

// Object is a map with these keys and no others, all of which may be missing.
func Object(fields map[string]Form) Form {
	return Form{"type": "object", "properties": fields, "additionalProperties": false}
}

// Document encodes the form of a file as a schema. Explain gives the description of a field, or "", by its path from the root: the
// names of the fields that lead to it, with dots; the keys of a Map are left out.
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

// explained gives the form with descriptions; path ends with a dot, or is empty.
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
