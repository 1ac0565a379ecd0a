package monitor

import (
	"errors"
	"net/http"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/membership"
)

// olderJoin refuses a machine whose mlfnode asks for a challenge before it joins, as versions before this one did.
func (m *Monitor) olderJoin(*http.Request) (struct{}, error) {
	return struct{}{}, &api.Error{Status: http.StatusUpgradeRequired, Msg: "this machine's mlfnode is older than the master's, and joins in another way",
		Hint: "install the master's version on it; mlfnode up does so"}
}

func (m *Monitor) join(r *http.Request, ask *trust.JoinRequest) (membership.JoinReply, error) {
	if m.cfg.Authority == nil {
		return membership.JoinReply{}, errAlone
	}
	answer, err := m.cfg.Authority.Join(*ask)
	if err != nil {
		m.knocks.refused(m.log, "join refused", r, err)
		return membership.JoinReply{}, refusal(err)
	}
	m.log.Info("node joined", "node", ask.Node, "from", r.RemoteAddr, "token", ask.TokenID())
	reply := m.cfg.Meet()
	reply.JoinAnswer = answer
	return reply, nil
}

func (m *Monitor) renew(r *http.Request, ask *trust.RenewalRequest) (trust.Renewal, error) {
	if _, err := peer(r); err != nil {
		return trust.Renewal{}, err
	}
	if m.cfg.Authority == nil {
		return trust.Renewal{}, errAlone
	}
	answer, err := m.cfg.Authority.Renew(r.TLS.PeerCertificates[0], *ask)
	if err == nil && len(answer.Certificate) > 0 {
		m.log.Info("certificate renewed", "from", r.RemoteAddr)
	}
	return answer, err
}

// admitted says whether a node may still ask: it may have been forgotten since its connection began.
func (m *Monitor) admitted(r *http.Request) error {
	node, err := peer(r)
	if err != nil || m.cfg.Authority == nil {
		return err
	}
	if err := m.cfg.Authority.Known(node, r.TLS.PeerCertificates[0]); err != nil {
		return &api.Error{Status: http.StatusForbidden, Msg: err.Error(), Hint: "join again with a token, made on the master with: mlfnode token"}
	}
	return nil
}

// refusal says why a machine may not join, and what to do.
func refusal(err error) error {
	hint := "make a new token on the master with: mlfnode token"
	status := http.StatusForbidden
	switch {
	case errors.Is(err, trust.ErrNameTaken):
		hint = "choose another name with --node NAME, or free it on the master with: mlfnode forget NAME"
		status = http.StatusConflict
	case errors.Is(err, trust.ErrBadRequest):
		hint, status = "use a mlfnode of the master's version", http.StatusBadRequest
	}
	return &api.Error{Status: status, Msg: err.Error(), Hint: hint}
}

func (m *Monitor) makeToken(_ *http.Request, ask *api.NewToken) (api.TokenMade, error) {
	if m.cfg.Authority == nil {
		return api.TokenMade{}, errAlone
	}
	t, err := m.cfg.Authority.MakeToken(trust.TokenSpec{
		Role: trust.Role(ask.Role), Expires: ask.Expires, Uses: ask.Uses, User: trust.Role(ask.User), Note: ask.Note,
	})
	if err != nil {
		return api.TokenMade{}, badRequest(err.Error(), "mlfnode token --help")
	}
	made := api.TokenMade{ID: t.ID, Token: t.Text(), Role: ask.Role, Master: m.cfg.Address}
	if ask.Expires > 0 {
		made.Expires = time.Now().Add(ask.Expires).UTC().Truncate(time.Second)
	}
	return made, nil
}

func (m *Monitor) tokens(*http.Request) ([]api.TokenKnown, error) {
	if m.cfg.Authority == nil {
		return nil, errAlone
	}
	all := []api.TokenKnown{}
	for _, t := range m.cfg.Authority.Tokens() {
		all = append(all, api.TokenKnown{
			ID: t.ID, Role: string(t.Role), State: t.State, Note: t.Note, Made: t.Created, Expires: t.Expires, Used: t.Used, Uses: t.Uses,
		})
	}
	return all, nil
}

func (m *Monitor) revoke(r *http.Request) (struct{}, error) {
	if m.cfg.Authority == nil {
		return struct{}{}, errAlone
	}
	err := m.cfg.Authority.Revoke(r.PathValue("id"))
	if errors.Is(err, trust.ErrUnknownToken) {
		err = &api.Error{Status: http.StatusNotFound, Msg: err.Error(), Hint: "list them with: mlfnode token list"}
	}
	return struct{}{}, err
}

func (m *Monitor) rotate(r *http.Request) (struct{}, error) {
	if m.cfg.Rotate == nil {
		return struct{}{}, errAlone
	}
	return struct{}{}, m.cfg.Rotate(r.Context())
}

func (m *Monitor) backup(w http.ResponseWriter, r *http.Request) {
	if m.cfg.Backup == nil {
		refuse(w, errAlone)
		return
	}
	w.Header().Set("Content-Type", mediaBinary)
	if err := m.cfg.Backup(r.Context(), w); err != nil {
		m.log.Warn("the backup ends early", "err", err)
		panic(http.ErrAbortHandler) // the client sees a cut stream
	}
}

func (m *Monitor) ca(*http.Request) (api.CA, error) {
	if m.cfg.CA == nil {
		return api.CA{}, errAlone
	}
	return m.cfg.CA(), nil
}

func (m *Monitor) stepCA(r *http.Request, ask *api.CAStep) (api.CA, error) {
	if m.cfg.StepCA == nil {
		return api.CA{}, errAlone
	}
	if err := m.cfg.StepCA(r.Context(), *ask); err != nil {
		return api.CA{}, err
	}
	return m.cfg.CA(), nil
}
