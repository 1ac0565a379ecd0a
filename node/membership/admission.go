package membership

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
)

// TokenVariable is the environment variable that holds a token. Arguments hold none, since other
// users can read them.
const TokenVariable = "MLF_CLUSTER_TOKEN"

// errForgotten ends an agent whose certificate the master no longer accepts.
var errForgotten = &api.Error{
	Msg:  "the master does not know this node any more: it was forgotten, or the cluster's CA was rotated while it was away",
	Hint: "join again with a token, made on the master with: mlfnode token",
}

// ErrExpired returns the error of a node that was off, or without its master, when its certificate
// should have been renewed.
func ErrExpired(id *trust.Identity) error {
	return &api.Error{
		Msg: fmt.Sprintf("this node's certificate expired on %s while it was offline",
			id.Expires().Local().Format("2 January 2006 15:04")),
		Hint: "make a token on the master with mlfnode token, and join again with the line that it prints: " +
			TokenVariable + "=… mlfnode join --seed HOST",
	}
}

// maxRefusals is how often in a row the master must refuse a node before the node believes it.
const maxRefusals = 8

// Admission watches whether the master accepts the connections of this node.
type Admission struct {
	membership *Membership
	log        *slog.Logger
	id         *trust.Identity
	stop       func()
	leave      context.CancelCauseFunc

	mu      sync.Mutex
	refused int // in a row
}

// Admission returns what watches the connections of a worker to its master. When the master refuses
// this node for good, it calls stop, so that the programs of the node end, and then leave with the
// reason.
func (s *Membership) Admission(stop func(), leave context.CancelCauseFunc) *Admission {
	return &Admission{membership: s, log: s.log, id: s.id, stop: stop, leave: leave}
}

// Connected is called when the connection to the master is there, or lost.
func (a *Admission) Connected(up bool) {
	if !up {
		a.log.Warn("lost the connection to the master; trials continue")
		return
	}
	a.mu.Lock()
	a.refused = 0
	a.mu.Unlock()
	a.log.Info("connected to the master")
	a.membership.masterBack.Set() // a master that was restarted may not have heard of this node
	a.recordRefused(false)
}

// TLS returns how this node dials the master. A machine at the address of the master that it cannot
// verify may be any machine, so the node keeps trying. The CA may have been rotated while the node
// was away, so it logs that.
func (a *Admission) TLS() *tls.Config {
	cfg := a.id.Client()
	verify, once := cfg.VerifyConnection, sync.Once{}
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		err := verify(s)
		if errors.Is(err, trust.ErrWrongCA) {
			once.Do(func() {
				a.recordRefused(true) // until it is connected again
				a.log.Warn("the machine at the master's address shows a certificate of another CA; if the cluster's CA was "+
					"rotated while this node was away, join again with a token, made on the master with: mlfnode token", "err", err)
			})
		}
		return err
	}
	return cfg
}

// Refused is called when the master has refused a connection. A master that says that the
// certificate has expired is believed only if the clock of this machine agrees, since that of the
// master may be wrong.
func (a *Admission) Refused(expired bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused++; a.refused != maxRefusals {
		return
	}
	var cause error = errForgotten
	switch {
	case a.id.Expired():
		cause = ErrExpired(a.id)
	case expired:
		a.log.Warn("this node's certificate has expired by the master's clock; check the clocks of both machines",
			"expires", a.id.Expires())
		return
	default:
		a.recordRefused(true)
	}
	a.stop() // no agent comes after this one
	a.leave(cause)
}

// refusedFile is in the trust folder of a node that the master has refused: its next agent joins
// again if it has a token.
const refusedFile = "refused"

func (a *Admission) recordRefused(refused bool) {
	path := filepath.Join(TrustDir(a.membership.stateDir), refusedFile)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if refused {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		a.log.Warn("whether the master accepts this node could not be recorded", "err", err)
	}
}

// Leave invalidates the credentials of a node that does not run, as if its master had refused it:
// the node needs a token to join again.
func Leave(stateDir string) error {
	if err := os.WriteFile(filepath.Join(TrustDir(stateDir), refusedFile), nil, 0o600); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return nil
}

// Refused reports whether the master refused the node of the state folder when it was last asked,
// or will refuse it, since its certificate has expired.
func Refused(stateDir string) bool {
	_, err := os.Stat(filepath.Join(TrustDir(stateDir), refusedFile))
	if err == nil {
		return true
	}
	id, err := trust.LoadIdentity(TrustDir(stateDir))
	return err == nil && id.Expired()
}
