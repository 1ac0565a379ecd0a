package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/doctor"
	"mlfnode/node/durable"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
	"mlfnode/node/private"
	"mlfnode/node/service"
)

// start brings the machine to the desired state.
func (o *operation) start(ctx context.Context) error {
	want := o.request.Desired
	if want == nil || want.Role != grid.Master && want.Role != grid.Worker {
		return errors.New("the request names no role for this machine")
	}
	h := service.Manager{User: os.Getuid() != 0}
	state, err := service.Status(ctx, h)
	if err == nil && state.Installed && !strings.HasPrefix(state.Program, o.Program()+" ") {
		cure := "on this machine: mlfnode service uninstall"
		if h.User {
			cure += " --user"
		}
		return &protocol.Problem{Cause: "another mlfnode is a service of this machine: " + state.Program, Cure: cure}
	}
	if err := errors.Join(refuseOtherMachine(o.Layout), refuseForeignFiles(o.Layout), o.restrictFolders()); err != nil {
		return err
	}
	text := want.Config
	if want.Role == grid.Worker {
		if err := o.putMovedStateAside(ctx); err != nil {
			return err
		}
		seed, err := o.chooseSeed(ctx)
		if err != nil {
			return err
		}
		if text = strings.TrimRight(text, "\n"); text != "" {
			text += "\n"
		}
		text += "seed: " + seed + "\n"
	}
	cfg, err := o.validateConfig(text)
	if err != nil {
		return err
	}
	refusal := o.checkIdentity(ctx, cfg)
	if _, taken := ports(o.Layout, cfg, want.Role == grid.Master); len(taken) > 0 {
		refusal = errors.Join(refusal, portProblem(taken[0]))
	}
	if refusal != nil {
		return refusal
	}
	if err := o.writeConfig(text); err != nil {
		return err
	}
	ready, err := o.ensureJoined(ctx, cfg)
	if err == nil && ready {
		err = o.ensureRunning(ctx)
	}
	seen := o.observe(ctx)
	seen.Joined = seen.Joined && (ready || err != nil)
	o.response.Observed = &seen
	return err
}

// putMovedStateAside renames the state folder if it is that of a master that was moved to another
// machine.
func (o *operation) putMovedStateAside(ctx context.Context) error {
	cfg := stateOf(o.Layout)
	if !node.Moved(cfg) {
		return nil
	}
	if err := stopAgent(ctx, o.Layout, o.observe(ctx).Service); err != nil {
		return err
	}
	aside, err := node.PutAside(cfg)
	if err != nil {
		return err
	}
	o.response.Notes = append(o.response.Notes, "the state of the master is kept there in "+aside)
	return nil
}

// restrictFolders takes away other users' write permission on the root folder and on the program's,
// so that they can't replace the program.
func (o *operation) restrictFolders() error {
	for _, dir := range []string{o.Root, filepath.Dir(o.Program())} {
		changed, err := private.Unshared(dir)
		if errors.Is(err, private.ErrExposed) {
			return &protocol.Problem{Cause: err.Error(), Cure: "choose another folder with -r"}
		}
		if err != nil {
			return fmt.Errorf("check who may write to %s: %w", dir, err)
		}
		if changed {
			o.response.Notes = append(o.response.Notes, "other users could write to "+dir+"; they no longer can")
		}
	}
	return nil
}

// refuseForeignFiles refuses a root folder that contains files of somebody else under the names of
// the node's own files: those would be replaced, and removed by a purge.
func refuseForeignFiles(p protocol.Layout) error {
	for _, file := range []string{"token", "trust", "lock"} {
		if _, err := os.Lstat(filepath.Join(p.State(), file)); err == nil {
			return nil // the state folder is a node's
		}
	}
	strange := ""
	if entries, _ := os.ReadDir(p.State()); len(entries) > 0 {
		strange = p.State()
	}
	b, err := os.ReadFile(p.Config())
	if err == nil && !strings.HasPrefix(string(b), protocol.NodeHeading) && readRecord(p) == (startRecord{}) {
		strange = p.Config()
	}
	if strange == "" {
		return nil
	}
	return &protocol.Problem{Cause: strange + " is already there, and mlfnode did not create it",
		Cure: "move it elsewhere, or choose another folder with -r"}
}

// writeConfig writes node.yaml if it differs from the desired text.
func (o *operation) writeConfig(text string) error {
	old, err := os.ReadFile(o.Config())
	info, statErr := os.Stat(o.Config())
	if err == nil && statErr == nil && string(old) == text && info.Mode().Perm() == 0o600 {
		return nil
	}
	if err := durable.WriteFile(o.Config(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the settings: %w", err)
	}
	if string(old) != text {
		o.recordChange("wrote node.yaml")
	}
	return nil
}

// validateConfig loads new settings before they replace the current ones.
func (i *installation) validateConfig(text string) (config.Config, error) {
	file := filepath.Join(i.Root, ".wanted.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return config.Config{}, fmt.Errorf("write the settings: %w", err)
	}
	defer os.Remove(file)
	cfg, err := i.loadConfig(file)
	if err != nil {
		return cfg, configProblem(i.Layout, err, file)
	}
	return cfg, nil
}

// configProblem reports an error of the settings in a file as one of node.yaml.
func configProblem(p protocol.Layout, err error, file string) error {
	return &protocol.Problem{Cause: strings.ReplaceAll(err.Error(), file, p.Config()),
		Cure: "correct the settings of this machine; the node.yaml that comes with mlfnode explains each"}
}

// ports lists the node's ports that are in use, by its own processes and by others.
func ports(p protocol.Layout, cfg config.Config, master bool) (own, others []doctor.TakenPort) {
	c := cfg.Cluster
	wanted := doctor.Ports{API: c.Ports.API, NATS: c.Ports.NATS, Gossip: c.Ports.Gossip}
	mine := processes(p)
	taken := doctor.TakenPorts(doctor.Host{Ports: wanted, Bind: c.Bind, Master: master})
	mine = append(mine, processes(p)...) // an agent may have started or ended meanwhile
	for _, t := range taken {
		if slices.ContainsFunc(mine, func(q process) bool { return q.PID == t.PID }) {
			own = append(own, t)
		} else {
			others = append(others, t)
		}
	}
	return own, others
}

func portProblem(t doctor.TakenPort) *protocol.Problem {
	t.Cure = strings.ReplaceAll(t.Cure, " in node.yaml", " under settings in cluster.yaml")
	if strings.HasPrefix(t.Cause, "held by") {
		return &protocol.Problem{Cause: "port " + t.Port + " is " + t.Cause, Cure: t.Cure}
	}
	return &protocol.Problem{Cause: "port " + t.Port + " can't be listened on: " + t.Cause, Cure: t.Cure}
}

// joinTimeout bounds the wait for an agent that the master has refused to release the state folder.
const joinTimeout = 15 * time.Second

// ensureJoined makes a worker join the cluster unless it already has. It returns false if that
// takes a token.
func (o *operation) ensureJoined(ctx context.Context, cfg config.Config) (ready bool, err error) {
	want := o.request.Desired
	id, err := trust.LoadIdentity(filepath.Join(o.State(), "trust"))
	joined := err == nil
	switch {
	case err != nil && !errors.Is(err, trust.ErrNoIdentity):
		return false, err
	case want.Role == grid.Master:
		return true, nil
	}
	// A master that does not answer counts as one that accepts the credentials.
	accepted := joined && !membership.Refused(cfg.StateDir) && !masterHasOtherCA(ctx, cfg, id) &&
		!credentialsRefused(ctx, cfg, id)
	switch {
	case accepted && id.Node == cfg.Node:
		return true, nil
	case want.Token == "":
		return false, nil
	}
	token, err := trust.ParseToken(want.Token)
	if err != nil {
		return false, err
	}
	if err := stopAgent(ctx, o.Layout, o.observe(ctx).Service); err != nil { // it may have old credentials
		return true, err
	}
	poll.Within(ctx, joinTimeout, pollInterval, func() bool {
		_, err = node.Join(ctx, cfg, cfg.Cluster.Seed, token)
		return !errors.Is(err, node.ErrInUse)
	})
	var refusal *api.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
		o.response.NameTaken = true
		cause, _, _ := strings.Cut(refusal.Msg, ";") // what follows is for people who join by hand
		return true, &protocol.Problem{Cause: cause,
			Cure: "give this one another name, with `name:` in cluster.yaml; " +
				"or, if that machine is gone, free it on the master: mlfnode forget " + string(cfg.Node)}
	}
	if err != nil {
		return true, err
	}
	o.recordChange("joined")
	want.Restart = true
	if accepted {
		o.response.FormerName = string(id.Node)
	}
	return true, nil
}

// checkIdentity refuses a machine whose credentials are for another role or another cluster, before
// anything is written.
func (o *operation) checkIdentity(ctx context.Context, cfg config.Config) error {
	want := o.request.Desired
	id, err := trust.LoadIdentity(filepath.Join(o.State(), "trust"))
	switch {
	case errors.Is(err, trust.ErrNoIdentity):
		return nil
	case err != nil:
		return err
	case id.Role != want.Role:
		return protocol.OtherRole(string(id.Node), id.Role, want.Role)
	case want.Role == grid.Master, want.TakeOver, membership.Refused(cfg.StateDir),
		!masterHasOtherCA(ctx, cfg, id):
		return nil
	}
	old := currentSeed(o.Layout)
	for _, seed := range want.Seeds { // this machine's master was set up again
		if address, err := api.WithPort(seed, config.DefaultAPIPort); err == nil && address == old {
			return nil
		}
	}
	return protocol.OtherCluster(string(id.Node), old)
}

// masterHasOtherCA reports whether the master is known to belong to another cluster than the
// credentials.
func masterHasOtherCA(ctx context.Context, cfg config.Config, id *trust.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: id.CAs.Client(nil)}
	c, err := d.DialContext(ctx, "tcp", cfg.Cluster.Seed)
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	return errors.Is(err, trust.ErrWrongCA)
}

const (
	// noBundle is a digest that no bundle has.
	noBundle = "0000000000000000000000000000000000000000000000000000000000000000"
	// refusedTries is how often a master that hangs up is asked: its reason may be lost with the
	// connection.
	refusedTries = 3
)

// credentialsRefused reports whether the master is known to refuse the credentials, in the TLS
// handshake or afterwards. It requests a bundle, which only a node may do.
func credentialsRefused(ctx context.Context, cfg config.Config, id *trust.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	client := api.NewRemote([]string{cfg.Cluster.Seed}, id.Client(), "")
	defer client.Close()
	for range refusedTries {
		content, err := client.Bundles().Get(ctx, noBundle)
		if err == nil {
			_ = content.Close() // the content is not needed
			return false
		}
		var alert *net.OpError
		if errors.As(err, &alert) && alert.Op == "remote error" { // how crypto/tls marks an alert of the other side
			return true
		}
		var answer *api.Error
		if errors.As(err, &answer) && answer.Status != 0 {
			return answer.Status == http.StatusForbidden
		}
	}
	return false
}

// ensureRunning starts the node, or restarts it if it runs something other than what is installed.
func (o *operation) ensureRunning(ctx context.Context) error {
	seen := o.observe(ctx)
	if seen.Active && seen.Service != "" && !seen.Stale && !o.request.Desired.Restart {
		return nil
	}
	r := startRecord{Role: o.request.Desired.Role, Service: seen.Service}
	if r.Service == "" {
		r.Service = seen.BestService
	}
	err := writeRecord(o.Layout, r)
	if err != nil {
		return err
	}
	if r.Service == protocol.ServiceBackground {
		err = launchBackground(ctx, o.Layout)
	} else {
		err = o.launchService(ctx, r)
	}
	if err != nil {
		return err
	}
	r.Program, r.Config = o.programDigest(), digestFile(o.Config())
	if err := writeRecord(o.Layout, r); err != nil {
		return err
	}
	if seen.Active {
		o.recordChange("restarted")
		return nil
	}
	o.recordChange("started")
	if r.Service == protocol.ServiceBackground {
		o.response.Notes = append(o.response.Notes, noRestartNote)
	}
	return nil
}
