package projects

import "mlfnode/grid/jsonschema"

// SchemaFile is the file of a new project by which editors complete and check project.yaml. It does not travel to the trials.
const SchemaFile = ".project.schema.json"

// objectOf is the form of a map with known fields.
func objectOf(known map[string]field) jsonschema.Form {
	forms := map[string]jsonschema.Form{}
	for name, f := range known {
		forms[name] = f.form
	}
	return jsonschema.Object(forms)
}

// JSONSchema gives the schema of project.yaml, made of the tables by which it is read. Explain is that of jsonschema.Document.
func JSONSchema(explain func(path string) string) ([]byte, error) {
	return jsonschema.Document("project.yaml of mlfnode", objectOf((&schema{}).projectFields(&Project{}, nil)), explain)
}

// Schema gives the schema of project.yaml with descriptions, as new projects get it.
func Schema() ([]byte, error) { return embedded.ReadFile(template + "/" + SchemaFile) }
