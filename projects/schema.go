package projects

import (
	"time"

	"mlfnode/grid/jsonschema"
)

// field is one known key of a map: the form of its value, for editors, and the function that reads
// it.
type field struct {
	form jsonschema.Form
	read func(yamlValue)
}

// The fields that store a single value in to.

func textField(to *string) field { return field{jsonschema.Text, into(to, yamlValue.filled)} }

func sizeField(to *int64) field { return field{jsonschema.Size, into(to, size)} }

func durationField(to *time.Duration) field { return field{jsonschema.Duration, into(to, duration)} }

func boolField(to *bool) field { return field{jsonschema.Bool, into(to, yamlValue.truth)} }

func choiceField[T ~string](to *T, choices ...T) field {
	return field{jsonschema.Choice(choices...), into(to, oneOf(choices...))}
}

// objectOf is the form of a map with known fields.
func objectOf(known map[string]field) jsonschema.Form {
	forms := map[string]jsonschema.Form{}
	for name, f := range known {
		forms[name] = f.form
	}
	return jsonschema.Object(forms)
}

// SchemaFile is the file of a new project that editors use to complete and check project.yaml. It
// does not travel to the trials.
const SchemaFile = ".project.schema.json"

// JSONSchema returns the schema of project.yaml, generated from the tables that drive its parser.
// For explain see jsonschema.Document.
func JSONSchema(explain func(path string) string) ([]byte, error) {
	return jsonschema.Document("project.yaml of mlfnode", objectOf(projectFields(&Project{}, new(yamlValue))), explain)
}

// Schema returns the schema of project.yaml with descriptions, as new projects get it.
func Schema() ([]byte, error) { return embedded.ReadFile(template + "/" + SchemaFile) }
