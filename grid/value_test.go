package grid

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
