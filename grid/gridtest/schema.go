package gridtest

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

// Schema compiles a JSON Schema. The function that it gives says why the schema refuses a YAML file, nil for one that it takes and for
// one that is empty or not YAML, which is for the reader to say.
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
