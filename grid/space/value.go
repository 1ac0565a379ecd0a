package space

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Kind determines how a Value is passed to a program and encoded in JSON.
type Kind uint8

// The kinds of values.
const (
	Text   Kind = iota // a string: `--key=text`
	Number             // Text is the number's source text, a valid JSON number: `--key=1e-3`
	True               // a bare flag: `--key`
	False              // the option is omitted
	List               // several arguments after one option: `--key a b`; Text is a JSON list of strings and numbers
)

// Value is one value of an axis. Text is the scalar's source text and reaches the program
// unchanged, so `1e-3` stays `1e-3`.
type Value struct {
	Text string
	Kind Kind
}

// MarshalJSON encodes texts as strings, numbers with their source text and flags as booleans.
func (v Value) MarshalJSON() ([]byte, error) { return v.appendJSON(nil), nil }

func (v Value) appendJSON(b []byte) []byte {
	switch v.Kind {
	case Number:
		return append(b, v.Text...)
	case True:
		return append(b, "true"...)
	case False:
		return append(b, "false"...)
	case List:
		return append(b, v.Text...)
	}
	return appendString(b, v.Text)
}

// appendString appends a JSON string as encoding/json encodes it, usually without calling that
// package.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, _ := json.Marshal(s) // a string can always be encoded
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (v *Value) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	switch {
	case len(b) == 0:
		return fmt.Errorf("empty value")
	case b[0] == '"':
		v.Kind = Text
		return json.Unmarshal(b, &v.Text)
	case b[0] == 't':
		*v = Value{Text: "true", Kind: True}
	case b[0] == 'f':
		*v = Value{Text: "false", Kind: False}
	case b[0] == '-' || (b[0] >= '0' && b[0] <= '9'):
		*v = Value{Text: string(b), Kind: Number}
	case b[0] == '[':
		var raw []json.RawMessage
		if err := json.Unmarshal(b, &raw); err != nil {
			return err
		}
		items := make([]Value, len(raw))
		for i, r := range raw {
			if r[0] == '[' {
				return fmt.Errorf("value %.40s has a list in a list", b)
			}
			if err := items[i].UnmarshalJSON(r); err != nil {
				return err
			}
		}
		*v = listOf(items)
	default:
		return fmt.Errorf("value %.40s is not a string, number, flag or list", b)
	}
	return nil
}

// listOf returns one value of several arguments.
func listOf(items []Value) Value {
	text := []byte{'['}
	for i, item := range items {
		if i > 0 {
			text = append(text, ',')
		}
		if item.Kind != Number {
			item = Value{Text: canonical(item).Text} // in a list, flags and lists are text
		}
		text = item.appendJSON(text)
	}
	return Value{Text: string(append(text, ']')), Kind: List}
}

// Words returns the arguments of the value: the elements of a list, or the text.
func (v Value) Words() []string {
	var items []Value
	if v.Kind != List || json.Unmarshal([]byte(v.Text), &items) != nil {
		return []string{canonical(v).Text}
	}
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = item.Text
	}
	return words
}

// Param is a parameter of a point: an axis and its value.
type Param struct {
	Key   string
	Value Value
}

// Params is one point of a space: every axis once, in the order of the axes.
type Params []Param

// MarshalJSON encodes an object whose keys are in the order of the axes.
func (p Params) MarshalJSON() ([]byte, error) { return p.AppendJSON(nil), nil }

// AppendJSON appends the object of MarshalJSON.
func (p Params) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	for i, q := range p {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, q.Key)
		b = append(b, ':')
		b = q.Value.appendJSON(b)
	}
	return append(b, '}')
}

// UnmarshalJSON decodes an object and keeps the order of its keys.
func (p *Params) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("params %.40s are not a JSON object", b)
	}
	*p = (*p)[:0]
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		var v Value
		if err := v.UnmarshalJSON(raw); err != nil {
			return err
		}
		*p = append(*p, Param{Key: key.(string), Value: v})
	}
	return nil
}
