package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/membership"
)

// Contact is how a user reaches the master of a cluster.
type Contact struct {
	masters []string
	tls     *tls.Config
	bearer  string

	file    string // where it was kept, "" for one that was given
	context trust.Context
}

// FindContact returns the contact that the user has chosen: master, HOST or HOST:PORT, with the
// token in MLF_CLUSTER_TOKEN or in the context file or, if master is empty, what the context file
// says. It returns nil if there is neither.
func FindContact(master string) (*Contact, error) {
	if master != "" {
		address, err := api.WithPort(master, config.DefaultAPIPort)
		if err != nil {
			return nil, err
		}
		if text := os.Getenv(membership.TokenVariable); text != "" {
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
	cas, err := c.Authorities()
	if err != nil {
		return nil, err
	}
	if c.Token == "" {
		return nil, &api.Error{Msg: "this machine has joined a cluster, but you have no token for it",
			Hint: "make one on the master with: mlfnode token --role operator"}
	}
	found := &Contact{masters: c.Master, bearer: c.Token, file: file, context: c}
	found.tls = cas.Client(found.learn)
	return found, nil
}

func withToken(address, text string) (*Contact, error) {
	t, err := trust.ParseToken(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", membership.TokenVariable, err)
	}
	return &Contact{masters: []string{address}, tls: t.Pin.Client(), bearer: t.Bearer()}, nil
}

// Introduce checks a token with the master at the address, and returns the context to save.
func Introduce(ctx context.Context, master string, token trust.Token) (trust.Context, error) {
	address, err := api.WithPort(master, config.DefaultAPIPort)
	if err != nil {
		return trust.Context{}, err
	}
	var cas trust.CAs
	cfg := token.Pin.Client()
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(s tls.ConnectionState) (err error) {
		if err = verify(s); err == nil {
			cas, err = token.Pin.CAs(s)
		}
		return err
	}
	client := api.NewRemote([]string{address}, cfg, token.Bearer())
	defer client.Close()
	ctx, stop := context.WithTimeout(ctx, membership.JoinTimeout)
	defer stop()
	if _, err := client.Node(ctx); err != nil {
		return trust.Context{}, membership.ExplainReach(address, err)
	}
	c := trust.Context{Master: []string{address}, Token: token.Bearer()}
	c.SetAuthorities(cas)
	return c, nil
}

// Client returns a client of the master.
func (c *Contact) Client() *api.Client { return api.NewRemote(c.masters, c.tls, c.bearer) }

// OfSame reports whether the contact is with the cluster of the state folder. If so, it learns the
// CAs of that cluster.
func (c *Contact) OfSame(dir string) bool {
	own := trust.CAsIn(membership.TrustDir(dir))
	var of trust.Context
	of.SetAuthorities(own)
	if !c.context.OfSame(of) {
		return false
	}
	c.learn(own)
	return true
}

// learn saves the CAs that the cluster has now, which change when its CA is rotated.
func (c *Contact) learn(cas trust.CAs) {
	if c.file != "" {
		_ = trust.Learn(c.file, cas) // the next command tries again
	}
}

// used records that the contact works: a cluster that was down is up again, and when it was last
// used.
func (c *Contact) used() {
	if c.file == "" {
		return
	}
	if c.context.Down != nil {
		c.context.Down = nil
		if now, err := trust.LoadContext(c.file); err == nil { // CAs may have been learnt meanwhile
			now.Down = nil
			_ = trust.SaveContext(c.file, now) // then it is found out once more
		}
	}
	now := time.Now()
	_ = os.Chtimes(c.file, now, now) // it is for people only
}

// explain adds to an error what is known about the cluster of the user's context.
func (c *Contact) explain(err error) error {
	var what *api.Error
	if c.file == "" || !errors.As(err, &what) || what.Status != 0 {
		return err
	}
	host, _, _ := net.SplitHostPort(c.masters[0])
	const alone = "--local runs on this machine alone"
	if d := c.context.Down; d != nil {
		up := "mlfnode up -f"
		if d.File != "" {
			up += " " + d.File
		}
		return &api.Error{
			Msg: fmt.Sprintf(
				"the cluster of %s was taken down on %s, and keeps its sweeps and results until it is up again", host,
				d.At.Local().Format("2 January 2006 15:04")),
			Hint: fmt.Sprintf("start it with: %s; %s", up, alone),
		}
	}
	last := ""
	if info, err := os.Stat(c.file); err == nil {
		last = " (last used " + info.ModTime().Local().Format("2 January 2006 15:04") + ")"
	}
	return &api.Error{Msg: what.Msg + last, Hint: what.Hint + "; " + alone}
}
