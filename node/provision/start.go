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
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/doctor"
	"mlfnode/node/durable"
	"mlfnode/node/membership"
	"mlfnode/node/poll"
	"mlfnode/node/private"
)

// start brings the machine to the desired state.
func (o *operation) start(ctx context.Context) error {
	want := o.request.Desired
	if want == nil || want.Role != string(trust.Master) && want.Role != string(trust.Worker) {
		return errors.New("the request names no role for this machine")
	}
	if err := o.refuseOtherInstallation(ctx); err != nil {
		return err
	}
	if err := errors.Join(o.refuseOtherMachine(), o.refuseForeignFiles(), o.restrictFolders()); err != nil {
		return err
	}
	if want.Role == string(trust.Worker) {
		if err := o.putMovedStateAside(ctx); err != nil {
			return err
		}
	}
	text, err := o.desiredConfig(ctx)
	if err != nil {
		return err
	}
	cfg, err := o.validateConfig(text)
	if err != nil {
		return err
	}
	if err := errors.Join(o.checkIdentity(ctx, cfg), o.checkPorts(cfg)); err != nil {
		return err
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
	cfg := config.Config{StateDir: o.State()}
	if !node.Moved(cfg) {
		return nil
	}
	if err := o.stopAgent(ctx, o.observe(ctx).Service); err != nil {
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
func (i *installation) refuseForeignFiles() error {
	for _, file := range []string{"token", "trust", "lock"} {
		if _, err := os.Lstat(filepath.Join(i.State(), file)); err == nil {
			return nil // the state folder is a node's
		}
	}
	strange := ""
	if entries, _ := os.ReadDir(i.State()); len(entries) > 0 {
		strange = i.State()
	}
	if b, err := os.ReadFile(i.Config()); err == nil && !strings.HasPrefix(string(b), protocol.NodeHeading) && readRecord(i.Layout) == (startRecord{}) {
		strange = i.Config()
	}
	if strange == "" {
		return nil
	}
	return &protocol.Problem{Cause: strange + " is already there, and mlfnode did not create it", Cure: "move it elsewhere, or choose another folder with -r"}
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

// desiredConfig returns the text of node.yaml, for a worker with its seed.
func (o *operation) desiredConfig(ctx context.Context) (string, error) {
	want := o.request.Desired
	if want.Role != string(trust.Worker) {
		return want.Config, nil
	}
	seed, err := o.chooseSeed(ctx)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(want.Config, "\n")
	if text != "" {
		text += "\n"
	}
	return text + "seed: " + seed + "\n", nil
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
		return cfg, i.configProblem(err, file)
	}
	return cfg, nil
}

func (i *installation) configProblem(err error, file string) error {
	return &protocol.Problem{Cause: strings.ReplaceAll(err.Error(), file, i.Config()), Cure: "correct the settings of this machine; the node.yaml that comes with mlfnode explains each"}
}

// checkPorts reports the first of the node's ports that another process holds.
func (o *operation) checkPorts(cfg config.Config) error {
	for _, t := range o.takenPorts(cfg, o.request.Desired.Role == string(trust.Master)) {
		return portProblem(t)
	}
	return nil
}

// takenPorts lists the node's ports that are neither free nor its own.
func (i *installation) takenPorts(cfg config.Config, master bool) []doctor.TakenPort {
	_, others := i.ports(cfg, master)
	return others
}

// ports lists the node's ports that are in use, by its own processes and by others.
func (i *installation) ports(cfg config.Config, master bool) (own, others []doctor.TakenPort) {
	c := cfg.Cluster
	ports := doctor.Ports{API: c.Ports.API, NATS: c.Ports.NATS, Gossip: c.Ports.Gossip}
	mine := processes(i.Layout)
	taken := doctor.TakenPorts(doctor.Host{Ports: ports, Bind: c.Bind, Master: master})
	mine = append(mine, processes(i.Layout)...) // an agent may have started or ended meanwhile
	for _, t := range taken {
		if slices.ContainsFunc(mine, func(p process) bool { return p.PID == t.PID }) {
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

// ensureJoined makes a worker join the cluster unless it already has. It returns false if that
// takes a token.
func (o *operation) ensureJoined(ctx context.Context, cfg config.Config) (ready bool, err error) {
	want := o.request.Desired
	id, err := trust.LoadIdentity(filepath.Join(o.State(), "trust"))
	joined := err == nil
	switch {
	case err != nil && !errors.Is(err, trust.ErrNoIdentity):
		return false, err
	case want.Role == string(trust.Master):
		return true, nil
	}
	accepted := joined && o.credentialsAccepted(ctx, cfg, id)
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
	if err := o.join(ctx, cfg, token); err != nil {
		return true, err
	}
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
	case string(id.Role) != want.Role:
		return protocol.OtherRole(string(id.Node), string(id.Role), want.Role)
	case want.Role == string(trust.Master), want.TakeOver, membership.Refused(cfg.StateDir), !o.masterHasOtherCA(ctx, cfg, id):
		return nil
	}
	old := o.currentSeed()
	for _, seed := range want.Seeds { // this machine's master was set up again
		if address, err := api.WithPort(seed, config.DefaultAPIPort); err == nil && address == old {
			return nil
		}
	}
	return protocol.OtherCluster(string(id.Node), old)
}

// masterHasOtherCA reports whether the master is known to belong to another cluster than the
// credentials.
func (i *installation) masterHasOtherCA(ctx context.Context, cfg config.Config, id *trust.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: id.CAs.Client(nil)}
	c, err := d.DialContext(ctx, "tcp", cfg.Cluster.Seed)
	if err == nil {
		_ = c.Close() // nothing was sent
	}
	return errors.Is(err, trust.ErrWrongCA)
}

// credentialsAccepted reports whether the credentials belong to the master's cluster and are not
// refused there. A master that does not answer gets the benefit of the doubt.
func (i *installation) credentialsAccepted(ctx context.Context, cfg config.Config, id *trust.Identity) bool {
	return !membership.Refused(cfg.StateDir) && !i.masterHasOtherCA(ctx, cfg, id) && !i.credentialsRefused(ctx, cfg, id)
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
func (i *installation) credentialsRefused(ctx context.Context, cfg config.Config, id *trust.Identity) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	client := api.NewRemote([]string{cfg.Cluster.Seed}, id.Client(), "")
	defer client.Close()
	for range refusedTries {
		content, err := client.Bundle(ctx, noBundle)
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

// joinTimeout bounds the wait for an agent that the master has refused to release the state folder.
const joinTimeout = 15 * time.Second

// join gets credentials. An agent with old credentials is stopped first.
func (o *operation) join(ctx context.Context, cfg config.Config, token trust.Token) error {
	err := o.stopAgent(ctx, o.observe(ctx).Service)
	if err != nil {
		return err
	}
	poll.Within(ctx, joinTimeout, pollInterval, func() bool {
		_, err = node.Join(ctx, cfg, cfg.Cluster.Seed, token)
		return !errors.Is(err, node.ErrInUse)
	})
	var refusal *api.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
		o.response.NameTaken = true
		cause, _, _ := strings.Cut(refusal.Msg, ";") // what follows is for people who join by hand
		return &protocol.Problem{Cause: cause,
			Cure: fmt.Sprintf("give this one another name, with `name:` in cluster.yaml; or, if that machine is gone, free it on the master: mlfnode forget %s", cfg.Node)}
	}
	if err != nil {
		return err
	}
	o.recordChange("joined")
	o.request.Desired.Restart = true
	return nil
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
	if err := o.writeRecord(r); err != nil {
		return err
	}
	launch := o.launchService
	if r.Service == protocol.ServiceBackground {
		launch = o.launchBackground
	}
	if err := launch(ctx, r); err != nil {
		return err
	}
	r.Program, r.Config = o.programDigest(), digestFile(o.Config())
	if err := o.writeRecord(r); err != nil {
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
