package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
)

// TokenVariable is the environment variable that holds a token. None may stand in arguments, which other users can read.
const TokenVariable = "MLF_CLUSTER_TOKEN"

// Contact is how a person reaches the master of a cluster.
type Contact struct {
	masters []string
	tls     *tls.Config
	bearer  string
}

// ContextFile is where this user's context is kept.
func ContextFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the context: %w; set XDG_CONFIG_HOME", err)
	}
	return filepath.Join(dir, "mlfnode", "context.yaml"), nil
}

// SaveContext keeps a context for this user. Later commands go to its cluster.
func SaveContext(c trust.Context) error {
	file, err := ContextFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make a folder for the context: %w", err)
	}
	return trust.SaveContext(file, c)
}

// FindContact gives the contact that the user has chosen: master, HOST or HOST:PORT, with the token in MLF_CLUSTER_TOKEN or in
// the context file; or, with no master, what the context file says. It is nil when there is neither.
func FindContact(master string) (*Contact, error) {
	if master != "" {
		address, err := WithPort(master, DefaultAPIPort)
		if err != nil {
			return nil, err
		}
		if text := os.Getenv(TokenVariable); text != "" {
			return withToken(address, text)
		}
		master = address
	}
	file, err := ContextFile()
	if err != nil {
		return nil, err
	}
	c, err := trust.LoadContext(file)
	switch {
	case errors.Is(err, trust.ErrNoContext) && master == "":
		return nil, nil
	case errors.Is(err, trust.ErrNoContext):
		return nil, &api.Error{Msg: "there is no token for the cluster of " + master,
			Hint: "save one with: mlfnode token use --master " + master + ", or set MLF_CLUSTER_TOKEN"}
	case err != nil:
		return nil, err
	}
	if master != "" {
		c.Master = []string{master}
	}
	cfg, err := c.TLS()
	if err != nil {
		return nil, err
	}
	if c.Token == "" {
		return nil, &api.Error{Msg: "this machine has joined a cluster, but you have no token for it",
			Hint: "make one on the master with: mlfnode token --role operator"}
	}
	return &Contact{masters: c.Master, tls: cfg, bearer: c.Token}, nil
}

func withToken(address, text string) (*Contact, error) {
	t, err := trust.ParseToken(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", TokenVariable, err)
	}
	return &Contact{masters: []string{address}, tls: t.Pin.Client(), bearer: t.Bearer()}, nil
}

// Introduce checks a token with the master at the address, and gives the context to save.
func Introduce(ctx context.Context, master string, token trust.Token) (trust.Context, error) {
	address, err := WithPort(master, DefaultAPIPort)
	if err != nil {
		return trust.Context{}, err
	}
	var ca *x509.Certificate
	cfg := token.Pin.Client()
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(s tls.ConnectionState) (err error) {
		if err = verify(s); err == nil {
			ca, err = token.Pin.CA(s)
		}
		return err
	}
	client := api.NewRemote([]string{address}, cfg, token.Bearer())
	defer client.Close()
	ctx, stop := context.WithTimeout(ctx, joinLimit)
	defer stop()
	if _, err := client.Node(ctx); err != nil {
		return trust.Context{}, explainReach(address, err)
	}
	c := trust.Context{Master: []string{address}, Token: token.Bearer()}
	c.SetAuthority(ca)
	return c, nil
}

// Client talks to the master of the contact.
func (c *Contact) Client() *api.Client { return api.NewRemote(c.masters, c.tls, c.bearer) }

// reachTime bounds the first call to a master.
const reachTime = 10 * time.Second

// Reach opens a session with the master of the contact.
func Reach(ctx context.Context, c *Contact) (*Session, error) {
	s := &Session{client: c.Client(), contact: c}
	ctx, stop := context.WithTimeout(ctx, reachTime)
	defer stop()
	if _, err := s.client.Node(ctx); err != nil {
		s.client.Close()
		return nil, explainReach(c.masters[0], err)
	}
	return s, nil
}

// patience is how long a session waits for a master that went away, and how often it tries.
const (
	patience      = 10 * time.Minute
	patientTry    = 500 * time.Millisecond
	patientNotice = 2 * time.Second
)

// Await waits for the master of a session that lost it. It calls notice once it takes longer.
func (s *Session) Await(ctx context.Context, notice func()) error {
	ctx, stop := context.WithTimeoutCause(ctx, patience, errors.New("the master did not come back"))
	defer stop()
	say := time.AfterFunc(patientNotice, notice)
	defer say.Stop()
	tick := time.NewTicker(patientTry)
	defer tick.Stop()
	for {
		s.client.Close() // connections to a master that is gone
		_, err := s.client.Node(ctx)
		var refusal *api.Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refusal) && refusal.Status != 0:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Remote reports whether the session is with the master of a cluster on another machine or of another user.
func (s *Session) Remote() bool { return s.contact != nil }
