package docker

import (
	"regexp"

	"mlfnode/grid"
)

// Fault is why the engine did not do what was asked of it.
type Fault struct {
	Class  grid.Class
	Reason string
}

func (f *Fault) Error() string { return f.Reason }

// faultRules tell by an engine's words who is responsible for its refusal. The first that matches decides; what none matches is the
// engine's own trouble. Engines give one HTTP status to many causes, so that the words are all there is to go by.
var faultRules = []struct {
	class grid.Class
	words *regexp.Regexp
}{
	{grid.ClassDisk, regexp.MustCompile(`no space left on device|[Dd]isk quota exceeded`)},
	{grid.ClassRegistry, regexp.MustCompile(`toomanyrequests|[Tt]oo [Mm]any [Rr]equests|rate limit|dial tcp|no such host|x509|Client\.Timeout|unexpected EOF|TLS handshake|i/o timeout|` +
		`server gave HTTP|server misbehaving|unknown blob|received unexpected HTTP status: 5|connection reset|made no progress|read the engine's report`)},
	{grid.ClassImage, regexp.MustCompile(`[Nn]o such image|pull access denied|invalid reference|no matching manifest|manifest unknown|not found: manifest|manifest for .* not found|` +
		`requested access|unauthorized|no basic auth|authentication required|repository name must be`)},
}

// faultClass gives the failure class of an image that the engine could not get.
func faultClass(err error) grid.Class {
	for _, r := range faultRules {
		if r.words.MatchString(err.Error()) {
			return r.class
		}
	}
	return grid.ClassEngine
}
