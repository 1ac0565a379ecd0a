package trust

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	challengeLife = time.Minute // from the question to the answer, over any network
	mostAnswered  = 1 << 16     // answered challenges remembered, 1,000 joins a second
)

// The layout of a nonce. It carries its own age, so that nobody has to remember the questions: a flood of them takes no memory
// and pushes out no one else's.
//
//	| 16 random bytes | 8: nanoseconds since the start of the authority | 32: HMAC-SHA256 of both and of the token's identifier |
const (
	nonceRandom = 16
	nonceHead   = nonceRandom + 8
	nonceLen    = nonceHead + sha256.Size
)

// Challenge is the master's question to a machine that wants to join. It is good for one answer within a minute, by the token
// that it was asked for, and tells nothing about whether there is such a token.
type Challenge struct {
	Nonce []byte `json:"nonce"`
}

// Challenge asks. Anybody may be asked any number of times: it costs some microseconds and no memory.
func (a *Authority) Challenge(tokenID string) Challenge {
	return Challenge{Nonce: a.nonces.make(tokenID)}
}

// nonces makes nonces and knows them again. Those of another life of the process have another key.
type nonces struct {
	key     [sha256.Size]byte
	clock   func() time.Time
	started time.Time // ages are differences, which a jump of the wall clock does not change

	mu       sync.Mutex
	answered map[[nonceRandom]byte]time.Duration // when they were made, since started
}

func newNonces(clock func() time.Time) *nonces {
	n := &nonces{clock: clock, started: clock(), answered: map[[nonceRandom]byte]time.Duration{}}
	rand.Read(n.key[:]) // never fails
	return n
}

func (n *nonces) age() time.Duration { return n.clock().Sub(n.started) }

func (n *nonces) make(tokenID string) []byte {
	nonce := make([]byte, nonceRandom, nonceLen)
	rand.Read(nonce)
	nonce = binary.BigEndian.AppendUint64(nonce, uint64(n.age()))
	return append(nonce, n.sum(nonce, tokenID)...)
}

func (n *nonces) sum(head []byte, tokenID string) []byte {
	h := hmac.New(sha256.New, n.key[:])
	h.Write(head)
	h.Write([]byte(tokenID))
	return h.Sum(nil)
}

// check says whether the nonce was made here, for this token, and within the last minute. It gives the time it was made.
func (n *nonces) check(nonce []byte, tokenID string) (time.Duration, error) {
	if len(nonce) != nonceLen || !hmac.Equal(nonce[nonceHead:], n.sum(nonce[:nonceHead], tokenID)) {
		return 0, fmt.Errorf("the %w: this master did not ask it; try again", ErrReplay)
	}
	made := time.Duration(binary.BigEndian.Uint64(nonce[nonceRandom:nonceHead]))
	if age := n.age() - made; age < 0 || age > challengeLife {
		return 0, fmt.Errorf("the %w: it is good for %s; try again", ErrReplay, challengeLife)
	}
	return made, nil
}

// spend takes a nonce for an answer that has been proved. Only those who have a secret get here, so what is remembered is
// theirs, and bounded.
func (n *nonces) spend(nonce []byte, made time.Duration) error {
	id := [nonceRandom]byte(nonce)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, used := n.answered[id]; used {
		return fmt.Errorf("the %w: it was answered before; try again", ErrReplay)
	}
	if len(n.answered) >= mostAnswered {
		n.forgetLocked()
	}
	if len(n.answered) >= mostAnswered {
		return errors.New("too many machines join at once; try again in a minute")
	}
	n.answered[id] = made
	return nil
}

// forgetLocked drops what check refuses for its age.
func (n *nonces) forgetLocked() {
	now := n.age()
	for id, made := range n.answered {
		if now-made > challengeLife {
			delete(n.answered, id)
		}
	}
}
