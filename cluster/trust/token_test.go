package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func genToken(t *rapid.T) Token {
	var token Token
	copy(token.Pin[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "pin"))
	copy(token.secret[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret"))
	token.ID = fmt.Sprintf("%010x", rapid.Uint64Max(1<<40-1).Draw(t, "id"))
	return token
}

func TestTokenText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := genToken(t)
		space := rapid.StringMatching(`[ \t\r\n]{0,3}`).Draw(t, "space")
		text := token.Text()
		if got, err := ParseToken(space + text + space); err != nil || got != token {
			t.Fatalf("got %v, %v, want the token again", got, err)
		}
		if got, ok := parseBearer(token.Bearer()); !ok || got.secret != token.secret || got.ID != token.ID {
			t.Fatalf("got %v, %v from the bearer", got, ok)
		}
		cut := rapid.IntRange(0, len(text)-1).Draw(t, "cut")
		if _, err := ParseToken(text[:cut]); err == nil || (cut > 5 && !strings.Contains(err.Error(), "cut off")) {
			t.Fatalf("cut at %d: got %v, want to be told", cut, err)
		}
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		other := text[:at] + string(rapid.SampledFrom([]byte("!.0aA_-=")).Draw(t, "byte")) + text[at+1:]
		if got, err := ParseToken(other); err == nil && (got == token) != (other == text) {
			t.Fatalf("got one token from two texts, which differ at %d", at)
		}
	})
}

func TestParseTokenErrors(t *testing.T) {
	good := Token{ID: "0123456789"}.Text()
	for text, want := range map[string]string{
		"":                                     "is empty",
		" \n":                                  "is empty",
		"hello":                                "this is not a token; one begins with mlf1.",
		"K10abc::server:x":                     "this is not a token",
		"mlf2." + good[5:]:                     "install the master's version",
		good[5+65:]:                            "the part of a token that goes to the API",
		good[:100]:                             "cut off: it has 100 characters of 124",
		good[:60] + "\n" + good[60:]:           "white space in the middle",
		good + good:                            "too long",
		strings.ToUpper(good[:69]) + good[69:]: "this is not a token",
		"mlf1." + strings.Repeat("Z", 64) + good[69:]: "is damaged",
		"mlf1." + strings.Repeat("A", 64) + good[69:]: "is damaged",
		good[:70] + "xyz" + good[73:]:                 "is damaged",
		good[:123] + "B":                              "is damaged", // bits that no secret has
		good[:90] + "+" + good[91:]:                   "is damaged",
		strings.ReplaceAll(good, ".", "a"):            "this is not a token",
		good[:80] + "a" + good[81:]:                   "is damaged",
	} {
		_, err := ParseToken(text)
		wantText(t, fmt.Sprintf("%.40q", text), err, want)
	}
}

func FuzzParseToken(f *testing.F) {
	good := Token{ID: "0123456789"}.Text()
	for _, s := range []string{"", good, good[:50], "mlf1....", "mlf9.a.b.c",
		" " + good + "\n", "0123456789." + good[len(good)-43:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Text() != strings.TrimSpace(text) {
			t.Errorf("got %q from %q", token.Text(), text)
		}
		if err != nil && len(text) > 60 && strings.Contains(err.Error(), text[20:]) {
			t.Errorf("the error quotes the token: %v", err)
		}
	})
}

// TestTokenKeepsItsSecret checks that a token is printed without its secret, however it is printed.
func TestTokenKeepsItsSecret(t *testing.T) {
	a, _, _ := newAuthority(t)
	token := makeToken(t, a, TokenSpec{Role: RoleOperator})
	_, secret, _ := strings.Cut(token.Bearer(), ".")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "token", token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", token)
	b, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(a.dir, tokensFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s", token, token, token, token), log.String(), string(b), string(stored),
		fmt.Sprint(a.Tokens()),
	} {
		if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprint(token.secret[:4])) {
			t.Errorf("got the secret in %s", text)
		}
	}
}

func TestTokenSpecs(t *testing.T) {
	a, _, _ := newAuthority(t)
	for _, s := range []TokenSpec{
		{}, {Role: RoleNone}, {Role: "root"}, {Role: RoleNode, Expires: -1}, {Role: RoleNode, Uses: -1},
		{Role: RoleViewer, Uses: 1},
		{Role: RoleOperator, User: RoleViewer}, {Role: RoleNode, User: RoleNode},
		{Role: RoleViewer, Note: strings.Repeat("x", 201)},
	} {
		if _, err := a.MakeToken(s); err == nil {
			t.Errorf("got a token from %+v, want a refusal", s)
		}
	}
	if n := len(a.Tokens()); n != 0 {
		t.Errorf("got %d tokens, want none", n)
	}
}

func TestCheckAccess(t *testing.T) {
	a, _, h := newAuthority(t)
	operator := makeToken(t, a, TokenSpec{Role: RoleOperator, Note: "ci"})
	viewer := makeToken(t, a, TokenSpec{Role: RoleViewer, Expires: time.Hour})
	revoked := makeToken(t, a, TokenSpec{Role: RoleViewer})
	node := makeToken(t, a, TokenSpec{Role: RoleNode})
	wantErr(t, "revoke", a.Revoke(revoked.ID), nil)
	wantErr(t, "revoke nothing", a.Revoke("ffffffffff"), ErrUnknownToken)
	forged := func(id string) string { return Token{ID: id, secret: [32]byte{1}}.Bearer() }

	if g, err := a.CheckAccess(operator.Bearer()); err != nil ||
		g != (Grant{ID: operator.ID, Role: RoleOperator, Note: "ci"}) {
		t.Errorf("operator: got %+v, %v", g, err)
	}
	if g, err := a.CheckAccess(viewer.Bearer()); err != nil || g.Role != RoleViewer {
		t.Errorf("viewer: got %+v, %v", g, err)
	}
	h.turn(time.Hour)
	for _, c := range []struct {
		what, bearer string
		want         error
	}{
		{"expired", viewer.Bearer(), ErrExpired},
		{"expired, wrong secret", forged(viewer.ID), ErrBadToken},
		{"revoked", revoked.Bearer(), ErrRevoked},
		{"revoked, wrong secret", forged(revoked.ID), ErrBadToken},
		{"node", node.Bearer(), ErrWrongRole},
		{"wrong secret", forged(operator.ID), ErrBadToken},
		{"unknown", forged("0000000000"), ErrBadToken},
		{"other's secret", operator.ID + viewer.Bearer()[10:], ErrBadToken},
		{"empty", "", ErrBadToken},
		{"no secret", operator.ID + ".", ErrBadToken},
		{"whole text", operator.Text(), ErrBadToken},
		{"zero secret", Token{ID: "0000000000"}.Bearer(), ErrBadToken},
		{"long", strings.Repeat("a", 1<<20), ErrBadToken},
	} {
		g, err := a.CheckAccess(c.bearer)
		wantErr(t, c.what, err, c.want)
		if g != (Grant{}) {
			t.Errorf("%s: got %+v, want nothing", c.what, g)
		}
		if errors.Is(err, ErrBadToken) && err.Error() != "the token is not known to this cluster" {
			t.Errorf("%s: got %q, want one text for all that are unknown", c.what, err)
		}
	}
	b := openAuthority(t, a.dir, h.clock) // the same after a restart
	_, err := b.CheckAccess(operator.Bearer())
	wantErr(t, "operator", err, nil)
	_, err = b.CheckAccess(revoked.Bearer())
	wantErr(t, "revoked", err, ErrRevoked)
}

func TestTokenList(t *testing.T) {
	a, _, h := newAuthority(t)
	want := map[string]string{}
	want[makeToken(t, a, TokenSpec{Role: RoleViewer}).ID] = "good"
	want[makeToken(t, a, TokenSpec{Role: RoleViewer, Expires: time.Hour}).ID] = "expired"
	once := makeToken(t, a, TokenSpec{Role: RoleNode, Uses: 1, User: RoleNone})
	want[once.ID] = "used up"
	if _, answer, err := join(a, t.TempDir(), once, "w1"); err != nil || answer.Access != "" || answer.Role != "" {
		t.Fatalf("got %v, access for %q, want none", err, answer.Role)
	}
	h.turn(time.Hour)
	last := makeToken(t, a, TokenSpec{Role: RoleViewer})
	want[last.ID] = "revoked"
	wantErr(t, "revoke", a.Revoke(last.ID), nil)
	list := a.Tokens()
	if len(list) != len(want) || list[0].ID != last.ID {
		t.Errorf("got %d tokens, the first %s, want %d, the newest first", len(list), list[0].ID, len(want))
	}
	for _, i := range list {
		if i.State != want[i.ID] {
			t.Errorf("token %s: got %s, want %s", i.ID, i.State, want[i.ID])
		}
	}
}

// TestPurge checks that tokens that ended 30 days ago are dropped, but that a node token stays as
// long as an access token depends on it.
func TestPurge(t *testing.T) {
	a, _, h := newAuthority(t)
	keep := map[string]bool{makeToken(t, a, TokenSpec{Role: RoleViewer}).ID: true}
	makeToken(t, a, TokenSpec{Role: RoleViewer, Expires: time.Hour})
	wantErr(t, "revoke", a.Revoke(makeToken(t, a, TokenSpec{Role: RoleViewer}).ID), nil)
	parent := makeToken(t, a, TokenSpec{Role: RoleNode, Expires: time.Hour})
	keep[parent.ID] = true
	_, answer, err := join(a, t.TempDir(), parent, "w1")
	if err != nil {
		t.Fatal(err)
	}
	keep[answer.Access[:10]] = true
	h.turn(29 * 24 * time.Hour)
	keep[makeToken(t, a, TokenSpec{Role: RoleViewer}).ID] = true
	if n := len(a.Tokens()); n != 6 {
		t.Errorf("got %d tokens after 29 days, want all 6", n)
	}
	h.turn(2 * 24 * time.Hour)
	keep[makeToken(t, a, TokenSpec{Role: RoleViewer}).ID] = true
	for _, i := range a.Tokens() {
		if !keep[i.ID] {
			t.Errorf("token %s (%s) is still there after 31 days", i.ID, i.State)
		}
		delete(keep, i.ID)
	}
	if len(keep) > 0 {
		t.Errorf("tokens %v are gone", keep)
	}
	wantErr(t, "revoke the parent", a.Revoke(parent.ID), nil)
	_, err = a.CheckAccess(answer.Access)
	wantErr(t, "the child", err, ErrRevoked)
}
