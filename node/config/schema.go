package config

import (
	_ "embed"
	"reflect"
	"slices"
	"strings"

	"mlfnode/grid/jsonschema"
)

// Schema is the JSON Schema of node.yaml with descriptions, for editors.
//
//go:embed node.schema.json
var Schema []byte

// JSONSchema generates the schema of node.yaml from the structs into which it is read. Explain is
// that of jsonschema.Document.
func JSONSchema(explain func(path string) string) ([]byte, error) {
	return jsonschema.Document("node.yaml of mlfnode", formOf(reflect.TypeFor[fileSettings]()), explain)
}

// settingForms returns the type of a value for each tag named form; any other tag lists the texts
// to choose from.
func settingForms() map[string]jsonschema.Form {
	return map[string]jsonschema.Form{
		"text":  jsonschema.Text,
		"texts": jsonschema.Any(jsonschema.Text, jsonschema.Texts),
		"bool": jsonschema.Any(jsonschema.Bool,
			jsonschema.Pattern("^([01]|t|T|f|F|true|True|TRUE|false|False|FALSE)$")),
		"count":    jsonschema.Count,
		"positive": jsonschema.Positive,
		"port": jsonschema.Any(jsonschema.Form{"type": "integer", "minimum": 1, "maximum": 65535},
			jsonschema.Pattern("^[0-9]+$")),
		"amount": jsonschema.Any(jsonschema.Above(0), jsonschema.Pattern(`^[0-9.eE+-]+$`)),
		"duration": jsonschema.Any(jsonschema.Form{"enum": []any{0, ""}},
			jsonschema.Pattern(`^\+?([0-9.]+(ns|us|µs|ms|s|m|h|d))+$`)),
		"size": jsonschema.Any(jsonschema.Form{"type": "integer", "minimum": 0},
			jsonschema.Pattern(`^[0-9][0-9.,]* *[kKmMgGtTpPeE]?[iI]?[bB]?$`)),
	}
}

// formOf returns the type of a map that is read into the struct.
func formOf(of reflect.Type) jsonschema.Form {
	fields := map[string]jsonschema.Form{}
	add(fields, of)
	return jsonschema.Object(fields)
}

func add(fields map[string]jsonschema.Form, of reflect.Type) {
	known := settingForms()
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		tag := f.Tag.Get("form")
		switch form, ok := known[tag]; {
		case options == "inline":
			add(fields, f.Type)
		case f.Type.Kind() == reflect.Struct:
			fields[name] = formOf(f.Type)
		case ok:
			fields[name] = form
		default:
			fields[name] = jsonschema.Choice(slices.Sorted(slices.Values(strings.Split(tag, ",")))...)
		}
	}
}
