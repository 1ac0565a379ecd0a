package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/durable"
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

// ContextFile is where this user's context is kept.
func ContextFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the context: %w; set XDG_CONFIG_HOME", err)
	}
	return filepath.Join(dir, "mlfnode", "context.yaml"), nil
}

// SaveContext makes a context the current one of this user: later commands go to its cluster. The
// former context, if it is of another cluster, moves to a file beside it, whose path is returned,
// because its secret is shown only once. Older files of the saved cluster are removed.
func SaveContext(c trust.Context) (kept string, err error) {
	file, err := ContextFile()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("make a folder for the context: %w", err)
	}
	if old, err := trust.LoadContext(file); err == nil && !old.OfSame(c) && old.Token != "" {
		kept = strings.TrimSuffix(file, ".yaml") + "-" + shortPin(old) + ".yaml"
		if err := trust.SaveContext(kept, old); err != nil {
			return "", fmt.Errorf("keep the context of another cluster: %w", err)
		}
	}
	if err := trust.SaveContext(file, c); err != nil {
		return kept, err
	}
	others, err := keptContexts(file)
	if err != nil {
		return kept, err
	}
	for _, other := range others {
		if old, err := trust.LoadContext(other); err == nil && old.OfSame(c) {
			if err := durable.Remove(other); err != nil {
				return kept, fmt.Errorf("remove an older context of the cluster: %w", err)
			}
		}
	}
	return kept, nil
}

// keptContexts returns the files beside the current context.
func keptContexts(current string) ([]string, error) {
	files, err := filepath.Glob(strings.TrimSuffix(current, ".yaml") + "-*.yaml")
	if err != nil {
		return nil, fmt.Errorf("find the contexts: %w", err)
	}
	return files, nil
}

// shortPin identifies the cluster of a context.
func shortPin(c trust.Context) string { return c.Pin().String()[:8] }

// KnownContext is one of this user's contexts.
type KnownContext struct {
	ID      string // names its cluster
	Current bool   // commands go there
	Used    time.Time
	trust.Context
}

// Contexts lists this user's contexts, one of each cluster, the current one first. A file that
// can't be read is an error.
func Contexts() ([]KnownContext, error) {
	current, err := ContextFile()
	if err != nil {
		return nil, err
	}
	files, err := keptContexts(current)
	if err != nil {
		return nil, err
	}
	var all []KnownContext
	for _, file := range append([]string{current}, files...) {
		c, err := trust.LoadContext(file)
		if errors.Is(err, trust.ErrNoContext) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(k KnownContext) bool { return k.OfSame(c) }) {
			continue // left by a killed command
		}
		k := KnownContext{ID: shortPin(c), Current: file == current, Context: c}
		if info, err := os.Stat(file); err == nil {
			k.Used = info.ModTime()
		}
		all = append(all, k)
	}
	return all, nil
}

// Use makes this the user's current context, at the address of another machine of its cluster if
// master is not empty.
func (k *KnownContext) Use(master string) error {
	if master != "" {
		address, err := api.WithPort(master, config.DefaultAPIPort)
		if err != nil {
			return err
		}
		k.Master = []string{address}
	}
	_, err := SaveContext(k.Context)
	return err
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

// reachTime bounds the first call to a master. A machine that refuses the connection is asked again
// for restartTime: a master that is restarted is back sooner.
const (
	reachTime   = 10 * time.Second
	restartTime = 5 * time.Second
)

// Reach opens a session with the master of the contact.
func Reach(ctx context.Context, c *Contact) (*Session, error) {
	return reachMaster(ctx, c, 0, func() {})
}

// ReachAgain is like Reach, but waits some seconds for a master that is being restarted, and calls
// notice once that takes longer.
func ReachAgain(ctx context.Context, c *Contact, notice func()) (*Session, error) {
	if c.context.Down != nil {
		return Reach(ctx, c)
	}
	return reachMaster(ctx, c, restartTime, notice)
}

func reachMaster(ctx context.Context, c *Contact, wait time.Duration, notice func()) (*Session, error) {
	s := &Session{client: c.Client(), contact: c}
	ctx, stop := context.WithTimeout(ctx, reachTime)
	defer stop()
	say := time.AfterFunc(noticeTime, notice)
	defer say.Stop()
	tick := time.NewTicker(patientTry)
	defer tick.Stop()
	for begun := time.Now(); ; {
		_, err := s.client.Node(ctx)
		if err == nil {
			c.used()
			return s, nil
		}
		if hungUp(err) && time.Since(begun) < wait {
			select {
			case <-tick.C:
				continue
			case <-ctx.Done():
			}
		}
		s.client.Close()
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		return nil, c.explain(membership.ExplainReach(c.masters[0], err))
	}
}

// hungUp reports whether a machine that is there ended a call early, as when a master has just been
// killed or is starting.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
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
			Msg:  fmt.Sprintf("the cluster of %s was taken down on %s, and keeps its sweeps and results until it is up again", host, d.At.Local().Format("2 January 2006 15:04")),
			Hint: fmt.Sprintf("start it with: %s; %s", up, alone),
		}
	}
	last := ""
	if info, err := os.Stat(c.file); err == nil {
		last = " (last used " + info.ModTime().Local().Format("2 January 2006 15:04") + ")"
	}
	return &api.Error{Msg: what.Msg + last, Hint: what.Hint + "; " + alone}
}

// patience is how long a session waits for a master that went away, which covers a restart of its
// machine.
const (
	patience      = time.Hour
	patientTry    = 500 * time.Millisecond
	patientNotice = 2 * time.Second
)

// Await waits until the master answers again, and calls notice once that takes longer.
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
		case errors.As(err, &refusal) && refusal.Status != 0 && refusal.Status < http.StatusInternalServerError:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// InCluster reports whether the session is with a node of a cluster: this process only watches what
// runs there, and never replaces it.
func (s *Session) InCluster() bool { return s.contact != nil || s.cluster }
