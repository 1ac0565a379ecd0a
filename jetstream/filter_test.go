package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func filtered(text string) (string, error) {
	var out bytes.Buffer
	f := newFilter("b", "secret", strings.NewReader(text), &out)
	err := f.run()
	if err == io.EOF {
		err = nil
	}
	_ = f.out.Flush()
	return out.String(), err
}

const hello = "CONNECT {\"verbose\":false,\"user\":\"mlfnode\",\"pass\":\"x\",\"auth_token\":\"y\"}\r\n"

// TestFilter passes on what a node may send as it is, and its name in the place of any other.
func TestFilter(t *testing.T) {
	sent := "PING\r\nPUB mlf.event.b.a-1 5\r\nhello\r\npub mlf.call.b.beat _INBOX.b.x.1 0\r\n\r\nSUB _INBOX.b.* 1\r\nUNSUB 1 2\r\n" +
		"HPUB mlf.log.b.a-1 _INBOX.b.x 16 18\r\nNATS/1.0\r\nA: b\r\nhi\r\nPONG\r\n" +
		"PUB $JS.API.CONSUMER.CREATE.records.x _INBOX.b.y 13\r\n{\"config\":{}}\r\n"
	got, err := filtered(hello + sent)
	if err != nil {
		t.Fatal(err)
	}
	connect, rest, _ := strings.Cut(got, "\r\n")
	if connect != `CONNECT {"pass":"secret","user":"node:b","verbose":false}` {
		t.Errorf("got %s", connect)
	}
	if want := strings.Replace(sent, "pub mlf", "PUB mlf", 1); rest != want {
		t.Errorf("got\n%q\nwant\n%q", rest, want)
	}
}

// TestFilterRefuses has each line that harms others refused before the server has it.
func TestFilterRefuses(t *testing.T) {
	rollup := "NATS/1.0\r\nnats-ROLLUP: all\r\n\r\n"
	push := `{"config":{"deliver_subject":"mlf.sweep.a-1"}}`
	for name, text := range map[string]string{
		"before CONNECT":            "PUB a 0\r\n\r\n",
		"broken CONNECT":            "CONNECT {\r\n",
		"second CONNECT":            hello + hello,
		"answer over a record":      hello + "PUB $JS.API.STREAM.INFO.records mlf.sweep.a-1 0\r\n\r\n",
		"answer as another's event": hello + "PUB $JS.API.DIRECT.GET.records mlf.event.a.a-1 2\r\n{}\r\n",
		"answer to another's inbox": hello + "PUB mlf.call.b.beat _INBOX.a.x 2\r\n{}\r\n",
		"answer to half a name":     hello + "PUB mlf.call.b.beat _INBOX.bb.x 2\r\n{}\r\n",
		"acknowledgement elsewhere": hello + "HPUB mlf.event.b.a-1 mlf.number.p 12 14\r\nNATS/1.0\r\n\r\n{}\r\n",
		"tabs":                      hello + "PUB\tmlf.event.b.a-1\tmlf.number.p\t2\r\n{}\r\n",
		"rollup":                    hello + fmt.Sprintf("HPUB mlf.artifacts.meta.b.x %d %d\r\n%s\r\n", len(rollup), len(rollup), rollup),
		"pushed cursor":             hello + fmt.Sprintf("PUB $JS.API.CONSUMER.CREATE.records.x %d\r\n%s\r\n", len(push), push),
		"too large":                 hello + fmt.Sprintf("PUB mlf.event.b.a-1 %d\r\n", maxPayload+1),
		"negative":                  hello + "PUB mlf.event.b.a-1 -1\r\n",
		"header beyond the end":     hello + "HPUB mlf.event.b.a-1 5 2\r\n",
		"longer than its size":      hello + "PUB mlf.event.b.a-1 1\r\nab\r\n",
		"no sizes":                  hello + "PUB mlf.event.b.a-1\r\n",
		"too many words":            hello + "PUB a b c 1\r\nx\r\n",
		"long line":                 hello + "SUB " + strings.Repeat("x", 2*longestLine) + " 1\r\n",
		"unknown operation":         hello + "RS+ $G x\r\n",
		"HTTP":                      "GET / HTTP/1.1\r\n\r\n",
	} {
		got, err := filtered(text)
		if !errors.As(err, &refusedError{}) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
		if _, after, _ := strings.Cut(got, "\r\n"); strings.Contains(after, "mlf.sweep") || strings.Contains(after, "mlf.number") {
			t.Errorf("%s: the server got %q", name, after)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(hello + "PUB mlf.event.b.a-1 5\r\nhello\r\n")
	f.Add(hello + "HPUB mlf.log.b.a-1 _INBOX.b.x 16 18\r\nNATS/1.0\r\nA: b\r\nhi\r\n")
	f.Add("CONNECT {}\r\nPUB a mlf.sweep.x 0\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, _ := filtered(text)
		// What has passed is the same for a filter that reads it again, less the credentials: it hides nothing.
		if again, err := filtered(got); !strings.HasPrefix(got, again) && err == nil {
			t.Errorf("%q became %q", got, again)
		}
	})
}

// TestRedirectedAnswers has a node want the server's answers elsewhere: it is cut off, and nothing is stored.
func TestRedirectedAnswers(t *testing.T) {
	l := newLab(t)
	if _, err := l.store.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{recordSubject("a-1"), numberSubject("p"), eventSubject("a", "a-1"), eventSubject("", "a-1"), leaseSubject("c1"), callSubject("a", callBeat)} {
		gone := make(chan struct{})
		nc, err := nats.Connect("nats://master", nats.SetCustomDialer(&dialer{Remote: l.remote("b"), life: t.Context()}), nats.NoReconnect(),
			nats.CustomInboxPrefix("_INBOX.b"), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$JS.API.STREAM.INFO.records", target, nil); err != nil {
			t.Fatal(err)
		}
		_ = nc.Flush()
		select {
		case <-gone:
		case <-time.After(time.Minute):
			t.Errorf("a node that wants its answer at %s was not cut off", target)
			nc.Close()
		}
	}
	if r, err := l.store.Records.Load(t.Context(), "a-1"); err != nil || r.Rev != 1 {
		t.Errorf("record: got %+v, %v; want it as it was", r, err)
	}
	if info, err := l.store.info(t.Context(), eventStream); err != nil || info.State.Msgs != 0 {
		t.Errorf("events: got %+v, %v; want none", info.State, err)
	}
}

// TestSilentClients has many connections that never show a certificate: they are cut off, and a node is served meanwhile.
func TestSilentClients(t *testing.T) {
	l := newLab(t)
	var silent []io.Closer
	ended := make(chan error, 100)
	for range cap(ended) {
		conn, err := l.remote("x").Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
	}
	if _, err := l.connect("w").Records.Load(t.Context(), "a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a node beside them: got %v", err)
	}
	limit := time.After(doorTime + 10*time.Second)
	for range silent {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a client without a certificate was answered")
			}
		case <-limit:
			t.Fatal("silent clients are not cut off")
		}
	}
	for _, c := range silent {
		c.Close()
	}
}
