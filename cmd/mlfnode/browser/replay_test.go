package browser

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"mlfnode/node/api"
)

// pageLoad is what one open page requests of a node.
type pageLoad struct {
	Stream    string // the path and query of its event stream; "" for none
	Questions []question
}

// question is a request that a page repeats.
type question struct {
	Path        string // with its query
	Header      http.Header
	Conditional bool // it has the ETag of the last answer
	First       time.Duration
	Every       time.Duration
}

// replayed sums up a replay.
type replayed struct {
	Requests, NotModified, Failed, Events, Bytes int64
	CPU                                          time.Duration
	Slowest                                      time.Duration
}

// recorder records the requests of a page.
type recorder struct {
	mu    sync.Mutex
	asked map[network.RequestID]*recordedRequest
}

type recordedRequest struct {
	at     time.Time
	path   string
	header http.Header
	status int64 // 0 before the answer
}

// record begins to record the requests of a page.
func (b *tab) record() *recorder {
	b.t.Helper()
	rec := &recorder{asked: map[network.RequestID]*recordedRequest{}}
	if err := chromedp.Listen(b.ctx, rec.listen); err != nil {
		b.t.Fatal(err)
	}
	return rec
}

func (rec *recorder) listen(event any) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	of := func(id network.RequestID) *recordedRequest {
		r := rec.asked[id]
		if r == nil {
			r = &recordedRequest{at: time.Now(), header: http.Header{}}
			rec.asked[id] = r
		}
		return r
	}
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err == nil && e.Request.Method == http.MethodGet && strings.HasPrefix(u.Path, api.Prefix+"/") {
			of(e.RequestID).path = u.RequestURI()
		}
	case *network.EventResponseReceived:
		of(e.RequestID).status = e.Response.Status
	case *network.EventRequestWillBeSentExtraInfo:
		for _, name := range []string{"Accept", "Accept-Encoding", "If-None-Match"} {
			for had, value := range e.Headers {
				if strings.EqualFold(had, name) {
					of(e.RequestID).header.Set(name, fmt.Sprint(value))
				}
			}
		}
	}
}

// load returns what the page has asked from a moment on, and the number of its requests since. A
// page asks again when the stream tells of a change, once a second at most. The replay repeats each
// question at the lower quartile of the page's intervals, so that it asks as often as a page whose
// browser has a processor of its own.
func (rec *recorder) load(from time.Time) (pageLoad, int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var l pageLoad
	n := 0
	byPath, opened := map[string][]*recordedRequest{}, time.Time{}
	for _, r := range rec.asked {
		if strings.HasPrefix(r.path, api.Prefix+"/events?") {
			if r.status == http.StatusOK && r.at.After(opened) { // the last one is the one that is open
				l.Stream, opened = r.path, r.at
			}
		} else if r.path != "" && r.at.After(from) {
			byPath[r.path] = append(byPath[r.path], r)
			n++
		}
	}
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		all := byPath[path]
		slices.SortFunc(all, func(a, b *recordedRequest) int { return a.at.Compare(b.at) })
		if len(all) < 3 { // it is not repeated
			continue
		}
		var gaps []time.Duration
		for i, r := range all[1:] {
			gaps = append(gaps, r.at.Sub(all[i].at))
		}
		slices.Sort(gaps)
		last := all[len(all)-1].header
		q := question{
			Path: path, Header: last.Clone(), Conditional: last.Get("If-None-Match") != "",
			First: all[0].at.Sub(from), Every: gaps[len(gaps)/4],
		}
		q.Header.Del("If-None-Match")
		l.Questions = append(l.Questions, q)
	}
	return l, n
}

// rate returns the number of requests per second of some pages.
func rate(pages []pageLoad) (sum float64) {
	for _, p := range pages {
		for _, q := range p.Questions {
			sum += 1 / q.Every.Seconds()
		}
	}
	return sum
}

// replaySocket is the environment variable that makes the test binary a client of the node behind
// a socket: it replays the pages on its standard input until that ends.
const replaySocket = "MLF_REPLAY_SOCKET"

// replay replays pages in another process until the function that it returns is called.
func replay(b *testing.B, socket string, pages []pageLoad) (stop func() replayed) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), replaySocket+"="+socket)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = json.NewEncoder(stdin).Encode(pages)
	}
	if err != nil {
		b.Fatal(err)
	}
	return func() (r replayed) {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Fatalf("replay pages: %v", err)
		}
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			b.Fatalf("replay pages: %v: %s", err, out.Bytes())
		}
		r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return r
	}
}

// replayPages runs in the other process of replay.
func replayPages() error {
	var pages []pageLoad
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&pages); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var done replayCounts
	var all sync.WaitGroup
	for _, p := range pages {
		c := &http.Client{Transport: &http.Transport{
			DisableCompression: true, MaxIdleConnsPerHost: 10,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", os.Getenv(replaySocket))
			},
		}}
		if p.Stream != "" {
			all.Go(func() { done.listen(ctx, c, p.Stream) })
		}
		for _, q := range p.Questions {
			all.Go(func() { done.repeat(ctx, c, q) })
		}
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	stop()
	all.Wait()
	return cmp.Or(err, json.NewEncoder(os.Stdout).Encode(replayed{
		Requests: done.requests.Load(), NotModified: done.notModified.Load(), Failed: done.failed.Load(),
		Events: done.events.Load(), Bytes: done.bytes.Load(), Slowest: time.Duration(done.slowest.Load()),
	}))
}

// replayCounts counts what a replay does.
type replayCounts struct {
	requests, notModified, failed, events, bytes, slowest atomic.Int64
}

// listen reads a stream until the context ends.
func (n *replayCounts) listen(ctx context.Context, c *http.Client, path string) {
	resp, err := ask(ctx, c, path, nil)
	if err != nil {
		n.fail(ctx, err)
		return
	}
	defer resp.Body.Close()
	buf := make([]byte, 64<<10)
	for {
		k, err := resp.Body.Read(buf)
		n.bytes.Add(int64(k))
		n.events.Add(int64(bytes.Count(buf[:k], []byte("event: "))))
		if err != nil {
			return
		}
	}
}

// repeat asks a question as a page does: not before the last one is answered.
func (n *replayCounts) repeat(ctx context.Context, c *http.Client, q question) {
	header := q.Header.Clone()
	timer := time.NewTimer(q.First)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begin := time.Now()
		timer.Reset(q.Every)
		resp, err := ask(ctx, c, q.Path, header)
		if err != nil {
			n.fail(ctx, err)
			continue
		}
		k, _ := io.Copy(io.Discard, resp.Body) // a body that ends early is the end of the replay
		resp.Body.Close()
		n.bytes.Add(k)
		n.requests.Add(1)
		if resp.StatusCode == http.StatusNotModified {
			n.notModified.Add(1)
		}
		if tag := resp.Header.Get("ETag"); tag != "" && q.Conditional {
			header.Set("If-None-Match", tag)
		}
		for took := int64(time.Since(begin)); ; {
			if most := n.slowest.Load(); took <= most || n.slowest.CompareAndSwap(most, took) {
				break
			}
		}
	}
}

// fail counts and prints an error, unless the replay is at its end.
func (n *replayCounts) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		n.failed.Add(1)
		fmt.Fprintln(os.Stderr, err)
	}
}

func ask(ctx context.Context, c *http.Client, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	resp, err := c.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotModified {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp, err
}
