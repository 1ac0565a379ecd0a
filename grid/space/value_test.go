package space

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

func TestParamsJSONAsEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Params{{Key: rapid.String().Draw(t, "key"), Value: Value{Text: rapid.String().Draw(t, "text")}}}
		got := string(p.AppendJSON(nil))
		want, err := json.Marshal(map[string]string{p[0].Key: p[0].Value.Text})
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%q: got %s, want %s", p, got, want)
		}
	})
}

// TestListsJSON encodes and decodes a point with a list of arguments.
func TestListsJSON(t *testing.T) {
	t.Parallel()
	layers := Params{{Key: "layers", Value: listOf([]Value{{Text: "64", Kind: Number}, {Text: "a b"}})},
		{Key: "lr", Value: Value{Text: "1", Kind: Number}}}
	if got := string(layers.AppendJSON(nil)); got != `{"layers":[64,"a b"],"lr":1}` {
		t.Errorf("got %s", got)
	}
	var read Params
	check(t, json.Unmarshal([]byte(`{"layers": [ 64, "a b" ], "lr": 1}`), &read))
	if string(read.AppendJSON(nil)) != string(layers.AppendJSON(nil)) {
		t.Errorf("read back as %s", read.AppendJSON(nil))
	}
}
