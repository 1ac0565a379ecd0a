package gridtest

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// Schema compiles a JSON Schema. The returned function returns the schema's error for a YAML file.
// It returns nil for a valid file, and for one that is empty or not YAML, which the parser must
// report.
func Schema(t testing.TB, text []byte) func(file string) error {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	form, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(file string) error {
		var v any
		if yaml.Unmarshal([]byte(file), &v) != nil || v == nil {
			return nil
		}
		return form.Validate(v)
	}
}
