package space

import (
	"encoding/json"
	"testing"
)

func BenchmarkSpaceAt(b *testing.B) {
	numbers := func(n ...json.Number) []json.Number { return n }
	list := []Value{{"50", Number}, {"100", Number}, {"500", Number}}
	interval := Axis{Key: "i", Interval: numbers("0", "1000000000")}
	fraction := Axis{Key: "lr", Interval: numbers("0.1", "1", "0.01")}
	for _, c := range []struct {
		name    string
		axes    []Axis
		exclude []string
	}{
		{"interval", []Axis{interval}, nil},
		{"fraction", []Axis{fraction}, nil},
		{"linspace", []Axis{{Key: "x", Linspace: numbers("0", "1", "1001")}}, nil},
		{"logspace", []Axis{{Key: "x", Logspace: numbers("-4", "-1", "1001")}}, nil},
		{"four axes", []Axis{{Key: "a", Values: list}, {Key: "b", Values: list}, fraction, interval}, nil},
		{"excluded", []Axis{{Key: "a", Values: list}, fraction, interval}, []string{"a == 100 and lr > 0.5"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, err := New(c.axes, c.exclude)
			if err != nil {
				b.Fatal(err)
			}
			n := s.Count()
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i += 7919 {
				mustAt(s, i%n)
			}
		})
	}
}

func BenchmarkExcludeMillion(b *testing.B) {
	axes := []Axis{{Key: "a", Interval: []json.Number{"0", "1000"}},
		{Key: "b", Interval: []json.Number{"0", "100", "0.1"}}}
	for b.Loop() {
		if _, err := New(axes, []string{"a > 500 and b < 20", "a == 7"}); err != nil {
			b.Fatal(err)
		}
	}
}
