package monitor

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/membership"
)

// accessHandlers answer calls about who may use the cluster: machines that join, tokens, keys and
// the CA.
type accessHandlers struct {
	cluster  *Cluster
	refusals *refusalLog
	log      *slog.Logger
}

// olderJoin refuses a machine whose mlfnode asks for a challenge before it joins, as versions
// before this one did.
func (h *accessHandlers) olderJoin(*http.Request) (struct{}, error) {
	return struct{}{}, &api.Error{Status: http.StatusUpgradeRequired,
		Msg:  "this machine's mlfnode is older than the master's, and joins in another way",
		Hint: "install the master's version on it; mlfnode up does so"}
}

func (h *accessHandlers) join(r *http.Request, ask *trust.JoinRequest) (membership.JoinReply, error) {
	if h.cluster.Authority == nil {
		return membership.JoinReply{}, errAlone
	}
	answer, err := h.cluster.Authority.Join(*ask)
	if err != nil {
		h.refusals.warn(h.log, "join refused", r, err)
		return membership.JoinReply{}, joinError(err)
	}
	h.log.Info("node joined", "node", ask.Node, "from", r.RemoteAddr, "token", ask.TokenID())
	reply := h.cluster.Meet()
	reply.JoinAnswer = answer
	return reply, nil
}

func (h *accessHandlers) renew(r *http.Request, ask *trust.RenewalRequest) (trust.Renewal, error) {
	if _, err := peer(r); err != nil {
		return trust.Renewal{}, err
	}
	if h.cluster.Authority == nil {
		return trust.Renewal{}, errAlone
	}
	answer, err := h.cluster.Authority.Renew(r.TLS.PeerCertificates[0], *ask)
	if err == nil && len(answer.Certificate) > 0 {
		h.log.Info("certificate renewed", "from", r.RemoteAddr)
	}
	return answer, err
}

// joinError says why a machine may not join, and what to do.
func joinError(err error) error {
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

func (h *accessHandlers) makeToken(_ *http.Request, ask *api.NewToken) (api.TokenMade, error) {
	if h.cluster.Authority == nil {
		return api.TokenMade{}, errAlone
	}
	t, err := h.cluster.Authority.MakeToken(trust.TokenSpec{
		Role: trust.Role(ask.Role), Expires: ask.Expires, Uses: ask.Uses, User: trust.Role(ask.User), Note: ask.Note,
	})
	if err != nil {
		return api.TokenMade{}, badRequest(err.Error(), "mlfnode token --help")
	}
	made := api.TokenMade{ID: t.ID, Token: t.Text(), Role: ask.Role, Master: h.cluster.Address}
	if ask.Expires > 0 {
		made.Expires = time.Now().Add(ask.Expires).UTC().Truncate(time.Second)
	}
	return made, nil
}

func (h *accessHandlers) tokens(*http.Request) ([]api.TokenKnown, error) {
	if h.cluster.Authority == nil {
		return nil, errAlone
	}
	all := []api.TokenKnown{}
	for _, t := range h.cluster.Authority.Tokens() {
		all = append(all, api.TokenKnown{
			ID: t.ID, Role: string(t.Role), State: t.State, Note: t.Note, Made: t.Created, Expires: t.Expires,
			Used: t.Used, Uses: t.Uses,
		})
	}
	return all, nil
}

func (h *accessHandlers) revoke(r *http.Request) (struct{}, error) {
	if h.cluster.Authority == nil {
		return struct{}{}, errAlone
	}
	err := h.cluster.Authority.Revoke(r.PathValue("id"))
	if errors.Is(err, trust.ErrUnknownToken) {
		err = &api.Error{Status: http.StatusNotFound, Msg: err.Error(), Hint: "list them with: mlfnode token list"}
	}
	return struct{}{}, err
}

func (h *accessHandlers) rotate(r *http.Request) (struct{}, error) {
	if h.cluster.Rotate == nil {
		return struct{}{}, errAlone
	}
	return struct{}{}, h.cluster.Rotate(r.Context())
}

func (h *accessHandlers) backup(w http.ResponseWriter, r *http.Request) {
	if h.cluster.Backup == nil {
		sendError(w, errAlone)
		return
	}
	w.Header().Set("Content-Type", mediaBinary)
	if err := h.cluster.Backup(r.Context(), w); err != nil {
		h.log.Warn("the backup was cut off", "err", err)
		panic(http.ErrAbortHandler) // the client sees a cut stream
	}
}

func (h *accessHandlers) ca(*http.Request) (api.CA, error) {
	if h.cluster.CA == nil {
		return api.CA{}, errAlone
	}
	return h.cluster.CA(), nil
}

func (h *accessHandlers) stepCA(r *http.Request, ask *api.CAStep) (api.CA, error) {
	if h.cluster.StepCA == nil {
		return api.CA{}, errAlone
	}
	if err := h.cluster.StepCA(r.Context(), *ask); err != nil {
		return api.CA{}, err
	}
	return h.cluster.CA(), nil
}
