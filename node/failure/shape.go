package failure

import (
	"regexp"
	"strings"
)

// maxShape bounds a shape.
const maxShape = 120

// varying are the parts of a message that differ from one attempt to the next.
var varying = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`'[^']*'|"[^"]*"|` + "`[^`]*`"), "'…'"},
	{regexp.MustCompile(`(^|[\s=(<[])[~.]{0,2}/[^\s,;:)>\]]+`), "${1}/…"},
	{regexp.MustCompile(`\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8,}\b`), "…"},
	{regexp.MustCompile(`[-+]?\d[\d_,]*(\.\d+)?([eE][-+]?\d+)?`), "N"},
	{regexp.MustCompile(`N([x:. ,]+N)+`), "N"},
}

// Shape gives what lines have in common that say the same of different attempts: numbers, texts in quotes and paths are left out.
func Shape(line string) string {
	line = strings.TrimSpace(line[:min(len(line), maxLine)])
	for _, v := range varying {
		line = v.re.ReplaceAllString(line, v.with)
	}
	if len(line) > maxShape {
		line = strings.ToValidUTF8(line[:maxShape], "") + "…"
	}
	return line
}
