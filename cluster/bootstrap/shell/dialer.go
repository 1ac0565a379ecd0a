package shell

import (
	"context"
	"os"
	"sync"
)

// Options configure a Dialer.
type Options struct {
	Key        string   // a private key to try first, "" for none
	AcceptNew  bool     // trust the host keys of machines that were never seen; a changed one is never trusted
	ConfigFile string   // "" for the user's
	KnownHosts string   // "" for the user's
	Prompt     Prompter // asks the user, nil where there is no terminal
}

// Prompter asks the user. A Dialer asks one question at a time.
type Prompter interface {
	// Confirm asks a yes-or-no question.
	Confirm(ctx context.Context, question string) (bool, error)
	// Secret asks for a secret, which is not shown, and returns it without a newline.
	Secret(ctx context.Context, question string) ([]byte, error)
}

// Dialer connects to machines, as OpenSSH's client would: with its configuration, keys, agent and
// known hosts. It may be used by many at once.
type Dialer struct {
	options   Options
	home      string
	config    config
	keys      *keyring
	passwords *passwordCache
	agents    *sshAgents
	limiter   *handshakeLimiter
	jumps     *jumpConnections
	hostKeyMu sync.Mutex // held while a host key is checked and asked about
}

// NewDialer reads the configuration. Errors are a *Problem for a key or configuration that cannot
// be used.
func NewDialer(o Options) (*Dialer, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, &Problem{Cause: "there is no home folder to look for .ssh in", Cure: "set HOME"}
	}
	c, err := loadConfig(o.ConfigFile, home)
	if err != nil {
		return nil, configProblem(o.ConfigFile, err)
	}
	if o.Prompt != nil {
		o.Prompt = &serialPrompter{Prompter: o.Prompt, turn: make(chan struct{}, 1)}
	}
	d := &Dialer{options: o, home: home, config: c,
		limiter:   &handshakeLimiter{all: make(chan struct{}, maxHandshakes), perServer: map[string]chan struct{}{}},
		keys:      &keyring{prompt: o.Prompt, keys: map[string]*fileKey{}},
		passwords: &passwordCache{byLogin: map[login]*password{}},
		agents:    &sshAgents{bySocket: map[string]agentConnection{}},
		jumps:     &jumpConnections{byPath: map[string]*jumpConnection{}}}
	if o.Key != "" {
		if key := d.keys.key(o.Key); key.err != nil {
			return nil, keyFileProblem(o.Key, key.err)
		}
	}
	return d, nil
}

// Address returns the name or address that ssh's configuration has for a target: where other
// programs reach the machine.
func (d *Dialer) Address(t Target) string {
	r, err := d.route(t)
	if err != nil {
		return t.Host
	}
	return r.host
}

// Close closes the connections to the agents. Those to machines stay open.
func (d *Dialer) Close() { d.agents.close() }

// serialPrompter lets one question at a time through to the user.
type serialPrompter struct {
	Prompter
	turn chan struct{}
}

// Confirm implements Prompter.
func (p *serialPrompter) Confirm(ctx context.Context, question string) (bool, error) {
	return serially(ctx, p.turn, func() (bool, error) { return p.Prompter.Confirm(ctx, question) })
}

// Secret implements Prompter.
func (p *serialPrompter) Secret(ctx context.Context, question string) ([]byte, error) {
	return serially(ctx, p.turn, func() ([]byte, error) { return p.Prompter.Secret(ctx, question) })
}

// serially calls fn once it is its turn, unless ctx ends before.
func serially[T any](ctx context.Context, turn chan struct{}, fn func() (T, error)) (answer T, err error) {
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
		return fn()
	case <-ctx.Done():
		return answer, context.Cause(ctx)
	}
}
