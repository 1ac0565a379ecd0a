package monitor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

const (
	linkTime    = time.Minute    // the time in which a link must be used
	sessionIdle = 12 * time.Hour // a session without a request or an open stream ends after this time
	sessionTime = 7 * 24 * time.Hour
	maxSessions = 64
	maxLinks    = 16
	// maxTries limits wrong links per minute. A link cannot be guessed, but attempts must not keep
	// the machine busy.
	maxTries = 5
)

// sessions holds the browsers that are logged in. A link can be used once, and gets the browser a
// cookie and a key. Only hashes of all three are kept. The zero value is ready to use.
type sessions struct {
	clock func() time.Time // nil means time.Now

	mu    sync.Mutex
	links map[[sha256.Size]byte]time.Time // when each expires
	open  map[[sha256.Size]byte]*session
	tries []time.Time // of wrong links, in the last minute
}

// session is one browser.
type session struct {
	started, used time.Time
	requests      int // the open ones
	key           [sha256.Size]byte
	ctx           context.Context // ends with the session, and ends its streams
	cancel        context.CancelFunc
}

func (s *sessions) now() time.Time {
	if s.clock != nil {
		return s.clock()
	}
	return time.Now()
}

// newSecret returns 256 random bits as text.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func hashOf(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// newLink returns the secret of a new link.
func (s *sessions) newLink() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for hash, until := range s.links {
		if !now.Before(until) || len(s.links) >= maxLinks {
			delete(s.links, hash)
		}
	}
	if s.links == nil {
		s.links = map[[sha256.Size]byte]time.Time{}
	}
	secret := newSecret()
	s.links[hashOf(secret)] = now.Add(linkTime)
	return secret
}

// redeem uses up a link and returns the cookie and the key of a new session; tired means that too
// many wrong links were tried.
func (s *sessions) redeem(link string) (cookie, key string, ok, tired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for len(s.tries) > 0 && now.Sub(s.tries[0]) > time.Minute {
		s.tries = s.tries[1:]
	}
	hash := hashOf(link)
	until, known := s.links[hash]
	delete(s.links, hash)
	if !known || !now.Before(until) {
		if len(s.tries) >= maxTries { // a valid link works however many guesses others make
			return "", "", false, true
		}
		s.tries = append(s.tries, now)
		return "", "", false, false
	}
	s.dropLocked(now)
	cookie, key = newSecret(), newSecret()
	v := &session{started: now, used: now, key: hashOf(key)}
	v.ctx, v.cancel = context.WithTimeout(context.Background(), sessionTime) // ends with the session
	s.open[hashOf(cookie)] = v
	return cookie, key, true, false
}

// dropLocked removes expired sessions and, if there are too many, the least recently used one.
func (s *sessions) dropLocked(now time.Time) {
	if s.open == nil {
		s.open = map[[sha256.Size]byte]*session{}
	}
	var oldest [sha256.Size]byte
	for hash, v := range s.open {
		if v.expired(now) {
			s.endLocked(hash)
		} else if o := s.open[oldest]; o == nil || v.used.Before(o.used) {
			oldest = hash
		}
	}
	if len(s.open) >= maxSessions {
		s.endLocked(oldest)
	}
}

func (s *sessions) endLocked(hash [sha256.Size]byte) {
	if v := s.open[hash]; v != nil {
		v.cancel()
		delete(s.open, hash)
	}
}

func (v *session) expired(now time.Time) bool {
	return v.requests == 0 && now.Sub(v.used) > sessionIdle || now.Sub(v.started) > sessionTime
}

// use returns the session with a cookie and a key, or nil if there is none.
func (s *sessions) use(cookie, key string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	v := s.open[hashOf(cookie)]
	if v == nil || v.key != hashOf(key) {
		return nil
	}
	if v.expired(now) {
		s.endLocked(hashOf(cookie))
		return nil
	}
	v.used = now
	return v
}

// requestStarted keeps a session from becoming idle while a request is open, until release is
// called.
func (s *sessions) requestStarted(v *session) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.requests++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		v.requests--
		v.used = s.now()
	}
}

// end ends a session.
func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(hashOf(cookie))
}
