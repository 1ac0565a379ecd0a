package guarantees

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// attack is one thing that somebody tries, and how it has to be refused.
type attack struct {
	name string
	do   func(a *attacks) error // what went wrong with the refusal
}

// memoryMargin is how much the memory of an agent may grow under all attacks together: pools of
// buffers, but nothing that an attacker chooses.
const memoryMargin = 96 << 20

// TestClosedByDefault attacks a running cluster from a host that is not of it, in part with the
// certificate of a worker. Each attack is refused, the cluster works on, memory stays flat, and no
// log has a secret.
func TestClosedByDefault(t *testing.T) {
	t.Parallel()
	a := newAttacks(t)
	before := map[string]int64{}
	for _, h := range a.Hosts[:3] {
		before[h.Name] = memory(t, h)
	}
	all := append(append(append([]attack{}, apiAttacks...), natsAttacks...), gossipAttacks...)
	for _, k := range all {
		t.Run(strings.ReplaceAll(k.name, " ", "_"), func(t *testing.T) {
			if err := k.do(a); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%d attacks", len(all))
	a.allAlive()
	a.submitWriters(a.worker, 6, 2, 10*time.Millisecond)
	a.checkAll()
	for _, h := range a.Hosts[:3] {
		now := memory(t, h)
		t.Logf("memory of %s: %d MB before, %d MB after", h.Name, before[h.Name]>>20, now>>20)
		if now > before[h.Name]+memoryMargin {
			t.Errorf("memory of %s went from %d to %d MB", h.Name, before[h.Name]>>20, now>>20)
		}
	}
}

var apiAttacks = []attack{
	{"no token", func(a *attacks) error {
		return a.call(trusting(), "", "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"malformed tokens", func(a *attacks) error {
		for _, text := range []string{".", "x", "x.y", a.Token, strings.Repeat("a", 10000) + ".b", "\x00.\x00",
			"0000000000.", bearer(a.Token) + "x"} {
			if err := a.call(trusting(), text, "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized,
				http.StatusRequestHeaderFieldsTooLarge, http.StatusBadRequest); err != nil {
				return fmt.Errorf("%.20q: %w", text, err)
			}
		}
		return nil
	}},
	{"a right token's id with another secret", func(a *attacks) error {
		right, other := bearer(a.NewToken("--role", "operator")), bearer(a.NewToken("--role", "operator"))
		id, _, _ := strings.Cut(right, ".")
		_, secret, _ := strings.Cut(other, ".")
		return a.call(trusting(), id+"."+secret, "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"an expired token", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator", "--expires", "1s"))
		if r := a.call(trusting(), token, "GET", "/v1/sweeps", nil); r.status != http.StatusOK {
			return fmt.Errorf("a token that is good yet: got %d, %v", r.status, r.err)
		}
		wait(1200 * time.Millisecond)
		return a.call(trusting(), token, "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"a revoked token", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator"))
		if r := a.call(trusting(), token, "GET", "/v1/sweeps", nil); r.status != http.StatusOK {
			return fmt.Errorf("a token that is good yet: got %d, %v", r.status, r.err)
		}
		id, _, _ := strings.Cut(token, ".")
		a.Master.Must("token", "revoke", id)
		return a.call(trusting(), token, "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"a viewer acts", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "viewer"))
		if r := a.call(trusting(), token, "GET", "/v1/sweeps", nil); r.status != http.StatusOK {
			return fmt.Errorf("a viewer reads: got %d, %v", r.status, r.err)
		}
		return a.actsRefused(trusting(), token)
	}},
	{"a node token acts", func(a *attacks) error { return a.actsRefused(trusting(), bearer(a.Token)) }},
	{"a node token reads", func(a *attacks) error {
		return a.call(trusting(), bearer(a.Token), "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized,
			http.StatusForbidden)
	}},
	{"a worker's certificate acts", func(a *attacks) error { return a.actsRefused(trusting(a.stolen(a.worker)), "") }},
	{"an operator makes tokens", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator"))
		for _, path := range []string{"/v1/tokens", "/v1/token", "/v1/tokens/rotate", "/v1/tokens/list"} {
			for _, method := range []string{"GET", "POST", "DELETE"} {
				r := a.call(trusting(), token, method, path, strings.NewReader("{}"))
				if err := r.refused(http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
					http.StatusUnauthorized); err != nil {
					return fmt.Errorf("%s %s: %w", method, path, err)
				}
			}
		}
		return nil
	}},
	{"a certificate of another authority", func(a *attacks) error {
		return a.call(trusting(a.forged(nil)), "", "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"a certificate that a worker has signed", func(a *attacks) error {
		worker := a.stolen(a.worker)
		return a.call(trusting(a.forged(&worker)), "", "GET", "/v1/sweeps", nil).refused(http.StatusUnauthorized)
	}},
	{"old versions of TLS", func(a *attacks) error {
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
			cfg := trusting()
			cfg.MinVersion, cfg.MaxVersion = version, version
			if r := a.call(cfg, "", "GET", "/v1/sweeps", nil); r.status != 0 {
				return fmt.Errorf("%s: got %d", tls.VersionName(version), r.status)
			}
		}
		return nil
	}},
	{"plain HTTP", func(a *attacks) error {
		answer, err := a.speaks(a.at(a.Master, apiPort), []byte("GET /v1/sweeps HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err != nil || strings.Contains(answer, "200 OK") || strings.Contains(answer, "sweep\"") {
			return fmt.Errorf("got %q, %v", answer, err)
		}
		return nil
	}},
	{"garbage for the API", func(a *attacks) error { return a.garbage(apiPort) }},
	{"oversize headers", func(a *attacks) error {
		r := a.request(trusting(), "GET", "/v1/sweeps", nil, func(r *http.Request) {
			r.Header.Set("X-Long", strings.Repeat("x", 4<<20))
		})
		return r.refused(http.StatusRequestHeaderFieldsTooLarge, http.StatusUnauthorized)
	}},
	{"oversize body without a token", func(a *attacks) error {
		return a.call(trusting(), "", "POST", "/v1/sweeps",
			io.LimitReader(zeros{}, 1<<30)).refused(http.StatusUnauthorized, http.StatusRequestEntityTooLarge)
	}},
	{"oversize body of an operator", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator"))
		body := io.MultiReader(strings.NewReader(`{"project":"`), io.LimitReader(letters{}, 1<<30))
		return a.call(trusting(), token, "POST", "/v1/sweeps", body).refused(http.StatusRequestEntityTooLarge,
			http.StatusBadRequest)
	}},
	{"a bundle under another digest", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator"))
		digest := strings.Repeat("0", 64)
		return a.call(trusting(), token, "PUT", "/v1/bundles/"+digest,
			strings.NewReader("text")).refused(http.StatusBadRequest, http.StatusUnprocessableEntity,
			http.StatusConflict)
	}},
	{"paths out of the store", func(a *attacks) error {
		token := bearer(a.NewToken("--role", "operator"))
		for _, path := range []string{
			"/v1/bundles/../../etc/passwd", "/v1/bundles/..%2f..%2fetc%2fpasswd", "/v1/bundles/%2e%2e",
			"/../../etc/passwd", "//etc/passwd",
			"/v1/sweeps/..%2f..%2f/artifacts", "/v1/sweeps/last/artifacts?path=../../../../etc/passwd",
			"/v1/sweeps/%00/trials", "/v1/sweeps/*/trials", "/v1/sweeps/%3e/logs",
		} {
			for _, method := range []string{"GET", "HEAD", "PUT"} {
				r := a.call(trusting(), token, method, path, nil)
				if strings.Contains(r.body, "root:") || r.status >= 500 {
					return fmt.Errorf("%s %s: got %d %s", method, path, r.status, tail(r.body))
				}
			}
		}
		return nil
	}},
	{"a host name of somebody else", func(a *attacks) error { // a web page that was led here by DNS
		r := a.request(trusting(), "GET", "/v1/sweeps", nil, func(r *http.Request) { r.Host = "attacker.example" })
		return r.refused(http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest,
			http.StatusBadRequest)
	}},
	{"slow clients of the API", func(a *attacks) error {
		return a.crowd(apiPort, func(c io.Writer) { _, _ = c.Write([]byte{0x16, 0x03, 0x01}) }, func() error {
			token := bearer(a.NewToken("--role", "viewer"))
			if r := a.call(trusting(), token, "GET", "/v1/sweeps", nil); r.status != http.StatusOK {
				return fmt.Errorf("a client among slow ones: got %d, %v", r.status, r.err)
			}
			return nil
		})
	}},
	{"slow headers over TLS", func(a *attacks) error { return a.slowHeaders() }},
}

var natsAttacks = []attack{
	{"NATS in clear", func(a *attacks) error {
		for _, text := range []string{"", "CONNECT {\"verbose\":true}\r\nPING\r\n", "INFO {}\r\n", "SUB > 1\r\n"} {
			answer, err := a.speaks(a.at(a.Master, natsPort), []byte(text))
			if err != nil || strings.Contains(answer, "INFO") || strings.Contains(answer, "PONG") ||
				strings.Contains(answer, "+OK") {
				return fmt.Errorf("%q: got %q, %v", text, answer, err)
			}
		}
		return nil
	}},
	{"HTTP to NATS", func(a *attacks) error {
		answer, err := a.speaks(a.at(a.Master, natsPort), []byte("GET /varz HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err != nil || strings.Contains(answer, "HTTP/1.") {
			return fmt.Errorf("got %q, %v", answer, err)
		}
		return nil
	}},
	{"garbage for NATS", func(a *attacks) error { return a.garbage(natsPort) }},
	{"NATS without a certificate", func(a *attacks) error { return a.notLetIn(trusting()) }},
	{"NATS without a certificate, with a password", func(a *attacks) error {
		return a.notLetIn(trusting(), nats.UserInfo("mlfnode", "mlfnode"))
	}},
	{"NATS with a certificate of another authority", func(a *attacks) error {
		return a.notLetIn(trusting(a.forged(nil)))
	}},
	{"NATS with a certificate that a worker has signed", func(a *attacks) error {
		worker := a.stolen(a.worker)
		return a.notLetIn(trusting(a.forged(&worker)))
	}},
	{"a worker calls itself the system", func(a *attacks) error {
		for _, user := range []string{"system", "mlfnode", "sys", "admin", ""} {
			c, err := a.bus(trusting(a.stolen(a.worker)), nats.UserInfo(user, ""))
			if err != nil {
				continue // not let in: just as well
			}
			_, err = c.SubscribeSync("$SYS.>")
			if err == nil {
				err = denied(c, "$SYS.>")
			}
			c.Close()
			if err != nil {
				return fmt.Errorf("as %q: %w", user, err)
			}
		}
		return nil
	}},
	{"events of another node", func(a *attacks) error {
		return a.cannotPublish("mlf.event."+a.victim.Name+".bash-1", "mlf.event.=.bash-1", "mlf.event.bash-1",
			"mlf.event."+a.worker.Name+".a.b")
	}},
	{"output of another node", func(a *attacks) error {
		return a.cannotPublish("mlf.log."+a.victim.Name+".bash-1", "mlf.log.=.bash-1")
	}},
	{"artifacts of another node", func(a *attacks) error {
		return a.cannotPublish("mlf.artifacts.meta."+a.victim.Name+".bash-1.0.x",
			"mlf.artifacts.data."+a.victim.Name+".bash-1.0.x.u", "mlf.bundles.meta.=.x", "mlf.bundles.data.=.x.u")
	}},
	{"calls of another node", func(a *attacks) error {
		return a.cannotPublish("mlf.call."+a.victim.Name+".beat", "mlf.call.=.beat")
	}},
	{"sweep records and leases", func(a *attacks) error {
		return a.cannotPublish("mlf.sweep.bash-1", "mlf.number.bash", "mlf.lease.x", "$KV.sweeps.bash-1")
	}},
	{"what others hear", func(a *attacks) error {
		return a.cannotSubscribe(">", "*", "mlf.>", "_INBOX.>", "_INBOX."+a.victim.Name+".>", "_INBOX.*.*",
			"mlf.event.>", "mlf.log.*.*", "mlf.call.>", "$JS.>")
	}},
	{"the system account", func(a *attacks) error {
		if err := a.cannotSubscribe("$SYS.>", "$SYS.ACCOUNT.*.DISCONNECT"); err != nil {
			return err
		}
		return a.cannotPublish("$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING.VARZ")
	}},
	{"streams deleted, emptied and changed", func(a *attacks) error {
		var subjects []string
		for _, stream := range []string{"events", "leases", "logs", "records", "bundles", "artifacts"} {
			for _, verb := range []string{"DELETE", "PURGE", "UPDATE", "CREATE", "MSG.DELETE", "SNAPSHOT", "RESTORE"} {
				subjects = append(subjects, "$JS.API.STREAM."+verb+"."+stream)
			}
		}
		return a.cannotPublish(append(subjects, "$JS.API.STREAM.CREATE.mine", "$JS.API.ACCOUNT.PURGE.x",
			"$JS.API.SERVER.REMOVE")...)
	}},
	{"what others wrote", func(a *attacks) error {
		return a.cannotPublish("$JS.API.CONSUMER.CREATE.events", "$JS.API.CONSUMER.CREATE.events.mine",
			"$JS.API.CONSUMER.CREATE.logs.mine", "$JS.API.CONSUMER.DURABLE.CREATE.events.mine",
			"$JS.API.CONSUMER.CREATE.artifacts.mine", "$JS.API.STREAM.MSG.GET.events", "$JS.API.DIRECT.GET.events",
			"$JS.API.DIRECT.GET.logs", "$JS.API.STREAM.MSG.GET.artifacts",
			"$JS.API.DIRECT.GET.artifacts.mlf.artifacts.meta."+a.victim.Name+
				".bash-1.0.x", "$JS.API.CONSUMER.DELETE.leases.shape_x", "$JS.API.CONSUMER.CREATE.leases.mine",
			"$JS.API.CONSUMER.MSG.NEXT.events.fold")
	}},
	{"the store itself", func(a *attacks) error {
		own := a.worker.Name
		return a.cannotPublish("mlf.event."+own+".bash-1", "mlf.log."+own+".bash-1",
			"mlf.artifacts.meta."+own+".bash-1.0.x", "mlf.wake.x", "mlf.metric."+own+".bash-1",
			"$JS.API.STREAM.INFO.events", "$JS.API.DIRECT.GET.records.mlf.sweep.bash-1",
			"$JS.API.CONSUMER.CREATE.records.mine", "$JS.API.CONSUMER.MSG.NEXT.leases.shape_x",
			"$JS.ACK.leases.shape_x.1.1.1.1.0")
	}},
	{"the server's answer as another node's event", func(a *attacks) error { return a.confusedDeputy() }},
	{"an oversize message", func(a *attacks) error { return a.tooMuch(fmt.Sprintf("PUB mlf.call.x %d\r\n", 1<<30)) }},
	{"an oversize line", func(a *attacks) error { return a.tooMuch("SUB " + strings.Repeat("x", 1<<20)) }},
	{"a message of negative size", func(a *attacks) error { return a.tooMuch("PUB mlf.call.x -1\r\n") }},
	{"slow clients of NATS", func(a *attacks) error {
		return a.crowd(natsPort, func(c io.Writer) { _, _ = c.Write([]byte{0x16}) }, func() error {
			return a.asWorker(func(c *nats.Conn) error { return c.FlushTimeout(5 * time.Second) })
		})
	}},
}

// actsRefused tries what only an operator may do.
func (a *attacks) actsRefused(cfg *tls.Config, token string) error {
	for _, call := range [][2]string{
		{"POST", "/v1/sweeps"}, {"POST", "/v1/sweeps/last/actions/cancel"}, {"POST", "/v1/sweeps/last/actions/retry"},
		{"POST", "/v1/sweeps/last/actions/extend"}, {"POST", "/v1/sweeps/last/actions/set"},
		{"PUT", "/v1/bundles/" + strings.Repeat("0", 64)}, {"POST", "/v1/nodes/host2/drain"},
	} {
		r := a.call(cfg, token, call[0], call[1], strings.NewReader("{}"))
		if err := r.refused(http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound); err != nil {
			return fmt.Errorf("%s %s: %w", call[0], call[1], err)
		}
		if r.status == http.StatusNotFound && !strings.Contains(call[1], "/nodes/") {
			return fmt.Errorf("%s %s: got %d, want a refusal", call[0], call[1], r.status)
		}
	}
	return nil
}

// garbage sends what is of no protocol, short and long.
func (a *attacks) garbage(port int) error {
	to := a.at(a.Master, port)
	for _, what := range [][]byte{
		{0}, bytes.Repeat([]byte{0xff}, 1<<16), []byte("\x16\x03\x01\xff\xff\x01\x00\xff\xfc\x03\x03"),
		[]byte(strings.Repeat("A", 1<<20)), []byte("SSH-2.0-x\r\n"),
		[]byte("\x80\x00\x00\x00\xff\xff\xff\xff"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), []byte("\r\n\r\n\r\n"),
	} {
		answer, err := a.speaks(to, what)
		if err != nil {
			return fmt.Errorf("%.20q: %w", what, err)
		}
		if len(answer) > 512 {
			return fmt.Errorf("%.20q: the port answers %d bytes: %.200q", what, len(answer), answer)
		}
	}
	return nil
}

// tooMuch speaks NATS by hand, with a worker's certificate, and wants the connection closed.
func (a *attacks) tooMuch(line string) error {
	raw, err := a.attacker.Network.Dial("tcp", a.at(a.Master, natsPort))
	if err != nil {
		return err
	}
	c := tls.Client(raw, trusting(a.stolen(a.worker)))
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(slowLimit)) // an open connection takes it
	if _, err := c.Write([]byte("CONNECT {\"verbose\":false,\"protocol\":1}\r\n" + line)); err != nil {
		return nil // it was closed in the middle
	}
	go func() { _, _ = io.CopyN(c, letters{}, 64<<20) }() // until it is closed
	said, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection is open after %v: %.300s", slowLimit, said)
	}
	return nil
}

// notLetIn tries to connect to NATS.
func (a *attacks) notLetIn(cfg *tls.Config, more ...nats.Option) error {
	c, err := a.bus(cfg, more...)
	if err == nil {
		c.Close()
		return fmt.Errorf("the server let it in")
	}
	return nil
}

// zeros and letters read for ever.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type letters struct{}

// Read implements io.Reader.
func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}
