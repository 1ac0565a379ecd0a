package projects

import "mlfnode/grid/jsonschema"

// SchemaFile is the file of a new project that editors use to complete and check project.yaml. It
// does not travel to the trials.
const SchemaFile = ".project.schema.json"

// objectOf is the form of a map with known fields.
func objectOf(known map[string]field) jsonschema.Form {
	forms := map[string]jsonschema.Form{}
	for name, f := range known {
		forms[name] = f.form
	}
	return jsonschema.Object(forms)
}

// JSONSchema returns the schema of project.yaml, generated from the tables that drive its parser.
// For explain see jsonschema.Document.
func JSONSchema(explain func(path string) string) ([]byte, error) {
	return jsonschema.Document("project.yaml of mlfnode", objectOf((&schema{}).projectFields(&Project{}, nil)), explain)
}

// Schema returns the schema of project.yaml with descriptions, as new projects get it.
func Schema() ([]byte, error) { return embedded.ReadFile(template + "/" + SchemaFile) }
