// Package printable makes text from programs and from other machines safe to show on a terminal.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line makes a line from a program safe to show. It removes escape sequences as a whole, other
// control characters and marks that change the direction of text, and replaces invalid UTF-8. Tabs
// stay. If carriage returns overwrite parts of the line, Line returns the last state that is not
// empty.
func Line(line []byte) string {
	text := stripEscapes(strings.ToValidUTF8(string(line), "�"))
	text = strings.TrimRight(text, "\r")
	if i := strings.LastIndexByte(text, '\r'); i >= 0 {
		text = text[i+1:]
	}
	return strings.Map(func(r rune) rune {
		hidden := unicode.IsControl(r) && r != '\t' || unicode.Is(unicode.Bidi_Control, r) ||
			r == '\u2028' || r == '\u2029' || r == '\ufeff'
		if hidden {
			return -1
		}
		return r
	}, text)
}

// Text makes a text of several lines safe to show, as Line does for one, and cuts it to at most
// limit bytes.
func Text(text string, limit int) string {
	text = Clip(strings.ToValidUTF8(text, "�"), limit) // first, because the work grows with the length
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		lines[i] = Line([]byte(line))
	}
	return strings.Join(lines, "\n")
}

// Clip cuts a text to at most limit bytes, between two characters, and marks the cut with an
// ellipsis.
func Clip(text string, limit int) string {
	const ellipsis = "…"
	if len(text) <= limit {
		return text
	}
	cut := max(limit-len(ellipsis), 0)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}

// Plain reports whether Line would not change the text and the text has no tabs.
func Plain(text string) bool {
	return Line([]byte(text)) == text && !strings.Contains(text, "\t")
}

const escape = 0x1b

// stripEscapes removes the sequences of ECMA-48: CSI, the strings OSC, DCS, SOS, PM and APC, and
// two-byte escapes, each also in its one-character C1 form.
func stripEscapes(s string) string {
	if !strings.ContainsAny(s, "\x1b\u0090\u0098\u009b\u009d\u009e\u009f") {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		intro := r
		if r == escape && len(s) > 1 {
			intro, n = rune(s[1])+0x40, 2 // ESC [ is CSI, 0x9b, and so on
		}
		if r != escape && (r < 0x80 || r > 0x9f) {
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		s = skipSequence(s[n:], intro)
	}
	return b.String()
}

// skipSequence removes the rest of the sequence that intro begins.
func skipSequence(s string, intro rune) string {
	switch intro {
	case 0x9b: // CSI: parameters and intermediates, then one final byte
		for i := 0; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return s[i+1:]
			}
			if s[i] < 0x20 || s[i] > 0x7e {
				return s[i:]
			}
		}
		return ""
	case 0x90, 0x98, 0x9d, 0x9e, 0x9f: // strings, up to BEL or ST
		for i := 0; i < len(s); i++ {
			switch {
			case s[i] == '\a':
				return s[i+1:]
			case s[i] == escape && i+1 < len(s) && s[i+1] == '\\':
				return s[i+2:]
			case strings.HasPrefix(s[i:], "\u009c"):
				return s[i+2:]
			}
		}
		return ""
	}
	return s
}
