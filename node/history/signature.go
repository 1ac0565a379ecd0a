package history

import "strings"

// maxLine and maxSignature bound, in bytes, the part of a line that is read and its signature.
const (
	maxLine      = 512
	maxSignature = 160
)

// signatureOf returns what lines have in common that say the same of different attempts: numbers
// become N, and quoted texts, paths and addresses become an ellipsis.
func signatureOf(line string) string {
	line = strings.TrimSpace(strings.ToValidUTF8(line[:min(len(line), maxLine)], ""))
	b := make([]byte, 0, len(line))
	for len(line) > 0 && len(b) < maxSignature {
		n, with := nextToken(line, len(b) == 0 || strings.IndexByte(" =([<", b[len(b)-1]) >= 0)
		if with == "N" && followsNumber(b) {
			b, with = b[:strings.LastIndexByte(string(b), 'N')], "N"
		}
		b = append(b, with...)
		line = line[n:]
	}
	return strings.ToValidUTF8(string(b[:min(len(b), maxSignature)]), "")
}

// nextToken returns the length of the first token of a line and what replaces it.
func nextToken(line string, start bool) (n int, with string) {
	c := line[0]
	switch {
	case strings.IndexByte("'\"`", c) >= 0 && start:
		if end := strings.IndexByte(line[1:], c); end >= 0 {
			return end + 2, "'…'"
		}
	case start && (c == '/' || strings.HasPrefix(line, "./") || strings.HasPrefix(line, "../") ||
		strings.HasPrefix(line, "~/")):
		if end := strings.IndexAny(line, " ,;:)>]"); end >= 0 {
			return end, "/…"
		}
		return len(line), "/…"
	case isDigit(c), isWord(c):
		return wordToken(line)
	case (c == '-' || c == '+') && start && len(line) > 1 && isDigit(line[1]):
		n, with = wordToken(line[1:])
		return n + 1, with
	}
	return 1, line[:1]
}

// wordToken reads a number, an address or a word.
func wordToken(line string) (n int, with string) {
	digits, hex := 0, 0
	for n < len(line) && isWord(line[n]) {
		if isDigit(line[n]) {
			digits++
		}
		if isDigit(line[n]) || strings.IndexByte("abcdef", line[n]) >= 0 {
			hex++
		}
		n++
	}
	switch {
	case strings.HasPrefix(line, "0x"), hex == n && hex >= 8 && digits > 0:
		return n, "…"
	case digits == 0:
		return n, line[:n]
	case !isDigit(line[0]): // a name with a number, like conv2d
		return n, strings.TrimRight(line[:n], "0123456789") + "N"
	}
	for n+1 < len(line) && (line[n] == '.' || (line[n] == '-' || line[n] == '+') && line[n-1] == 'e') &&
		isDigit(line[n+1]) {
		for n++; n < len(line) && isWord(line[n]); n++ { // a fraction or an exponent
		}
	}
	return n, "N"
}

// followsNumber reports whether only separators follow the last number: a list counts as one
// number.
func followsNumber(b []byte) bool {
	rest := strings.TrimRight(string(b), " ,:x.")
	return len(rest) < len(b) && strings.HasSuffix(rest, "N") && (len(rest) == 1 || !isWord(rest[len(rest)-2]))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
