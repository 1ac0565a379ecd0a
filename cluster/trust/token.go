package trust

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"mlfnode/grid/lazyregexp"
)

// The text of a token is mlf1.<pin, 64 hexadecimal digits>.<id, 10 hexadecimal digits>.<secret, 43
// characters of base64url>.
const (
	tokenPrefix = "mlf1"
	idBytes     = 5 // short enough to type; a new token never gets an identifier that is in use
	secretBytes = 32
)

var (
	tokenID   = lazyregexp.New(`^[0-9a-f]{10}$`)
	secretLen = base64.RawURLEncoding.EncodedLen(secretBytes)
	tokenLen  = len(tokenPrefix) + 1 + 2*sha256.Size + 1 + 2*idBytes + 1 + secretLen
	secrets   = base64.RawURLEncoding.Strict() // each secret has a single encoding
)

// Token is a join or access token: it identifies the cluster and the token, and holds the secret.
// It prints without the secret.
type Token struct {
	Pin Pin
	ID  string

	secret [secretBytes]byte
}

// Text returns the whole token, including the secret. Anyone who has it has the token's role.
func (t Token) Text() string { return tokenPrefix + "." + t.Pin.String() + "." + t.Bearer() }

// Bearer returns the credentials for `Authorization: Bearer`: <id>.<secret>.
func (t Token) Bearer() string { return t.ID + "." + secrets.EncodeToString(t.secret[:]) }

// String omits the secret.
func (t Token) String() string { return "token " + t.ID }

// GoString omits the secret.
func (t Token) GoString() string { return t.String() }

// LogValue omits the secret.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.ID) }

// hash returns what the authority stores of a secret.
func (t Token) hash() [sha256.Size]byte { return sha256.Sum256(t.secret[:]) }

// ParseToken parses the text of a token and ignores surrounding white space. Its errors never quote
// the text.
func ParseToken(text string) (Token, error) {
	var t Token
	text = strings.TrimSpace(text)
	parts := strings.Split(text, ".")
	switch {
	case text == "":
		return t, errors.New("the token is empty; mlfnode token prints one on the master")
	case strings.ContainsAny(text, " \t\r\n"):
		return t, errors.New("the token contains white space in the middle; paste it as one line")
	case parts[0] != tokenPrefix && len(parts) == 2 && tokenID.Get().MatchString(parts[0]):
		return t, fmt.Errorf("this is the part of a token that goes to the API; the whole token begins with %s.",
			tokenPrefix)
	case parts[0] != tokenPrefix && strings.HasPrefix(parts[0], "mlf") && len(parts) > 1:
		return t, errors.New("the token is of a form that this mlfnode does not know; install the master's version")
	case parts[0] != tokenPrefix:
		return t, fmt.Errorf("this is not a token; one begins with %s.", tokenPrefix)
	case len(text) < tokenLen:
		return t, fmt.Errorf("the token was cut off: it has %d characters of %d; paste it whole", len(text), tokenLen)
	case len(text) > tokenLen:
		return t, fmt.Errorf("the token is too long: it has %d characters, not %d; paste it alone", len(text), tokenLen)
	case len(parts) != 4:
		return t, errDamagedToken
	}
	pin, id := parts[1], parts[2]
	b, err := hex.DecodeString(pin)
	secret, ok := decodeSecret(parts[3])
	if err != nil || len(b) != len(t.Pin) || pin != strings.ToLower(pin) || !tokenID.Get().MatchString(id) || !ok {
		return t, errDamagedToken
	}
	return Token{Pin: Pin(b), ID: id, secret: secret}, nil
}

var errDamagedToken = errors.New(
	"the token is damaged; copy it again, or make a new one with mlfnode token on the master")

func decodeSecret(text string) (secret [secretBytes]byte, ok bool) {
	if len(text) != secretLen || strings.ContainsAny(text, "\r\n") { // base64 skips these
		return secret, false
	}
	b, err := secrets.DecodeString(text)
	if err != nil || len(b) != secretBytes {
		return secret, false
	}
	return [secretBytes]byte(b), true
}

// parseBearer parses <id>.<secret>.
func parseBearer(text string) (Token, bool) {
	id, secret, found := strings.Cut(text, ".")
	if !found || !tokenID.Get().MatchString(id) {
		return Token{}, false
	}
	s, ok := decodeSecret(secret)
	return Token{ID: id, secret: s}, ok
}
