package monitor

import (
	"bytes"
)

// textFinder finds a text in data; unless exact, it ignores the case of ASCII letters. It searches
// for the rarest part of the text, which vector instructions make fast, and compares the rest where
// that part occurs.
type textFinder struct {
	text  []byte // in lower case unless exact
	exact bool

	data   []byte
	part   []byte // of the text, to search for: one letter, or bytes without letters
	at     int    // its offset in the text
	other  byte   // the upper-case letter, if it is a letter
	places [2]int // offsets in data of the next part and of the next other; after the end of data if there is none
}

// sampleBytes is the size of the sample of the data that determines which part is rare.
const sampleBytes = 4096

func newTextFinder(text string, exact bool) *textFinder {
	f := &textFinder{text: []byte(text), exact: exact}
	if !exact {
		for i, c := range f.text {
			f.text[i] = toLower(c)
		}
	}
	return f
}

// toLower lowers the case of A to Z only, so that offsets stay the same in any encoding.
func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func isLetter(c byte) bool { return 'a' <= toLower(c) && toLower(c) <= 'z' }

// reset starts a search in data.
func (f *textFinder) reset(data []byte) {
	f.data, f.places = data, [2]int{-1, -1}
	f.part, f.at, f.other = f.text, 0, 0
	if f.exact {
		return
	}
	sample := data[:min(len(data), sampleBytes)]
	var counts [256]int
	for _, c := range sample {
		counts[toLower(c)]++
	}
	least := len(sample) + 1
	for lo := 0; lo < len(f.text); {
		hi := lo + 1
		for ; hi < len(f.text) && !isLetter(f.text[lo]) && !isLetter(f.text[hi]); hi++ {
		}
		n := counts[f.text[lo]]
		if hi > lo+1 {
			n = bytes.Count(sample, f.text[lo:hi])
		}
		if n < least {
			least, f.part, f.at = n, f.text[lo:hi], lo
		}
		lo = hi
	}
	if isLetter(f.part[0]) {
		f.other = f.part[0] - ('a' - 'A')
	}
}

// next returns the offset of the first occurrence at or after from, which must not be less than in
// the previous call, or -1 if there is none.
func (f *textFinder) next(from int) int {
	for from += f.at; ; from++ {
		if f.places[0] < from {
			f.places[0] = f.indexOrEnd(from, bytes.Index(f.data[min(from, len(f.data)):], f.part))
		}
		if f.places[1] < from {
			f.places[1] = len(f.data)
			if f.other != 0 {
				f.places[1] = f.indexOrEnd(from, bytes.IndexByte(f.data[min(from, len(f.data)):], f.other))
			}
		}
		from = min(f.places[0], f.places[1])
		begin := from - f.at
		if begin+len(f.text) > len(f.data) {
			return -1
		}
		if f.matches(f.data[begin : begin+len(f.text)]) {
			return begin
		}
	}
}

func (f *textFinder) indexOrEnd(from, at int) int {
	if at < 0 {
		return len(f.data)
	}
	return from + at
}

func (f *textFinder) matches(data []byte) bool {
	if f.exact {
		return true // the part is the whole text
	}
	for i, c := range data {
		if toLower(c) != f.text[i] {
			return false
		}
	}
	return true
}
