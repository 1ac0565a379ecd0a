package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
)

// ErrLost is returned by a Client's calls when the connection to the node is lost: the caller may
// reconnect and continue.
var ErrLost = errors.New("the node went away")

// Client talks to one node. Its calls are grouped by what they are about:
//
//	_, err := client.Sweeps().Pause(ctx, "chainer-3")
type Client struct {
	http   *http.Client
	base   string
	bearer string // sent with each request when set
}

// NewClient makes a client that reaches the node through dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
	}
	return &Client{http: &http.Client{Transport: transport}, base: "http://node"}
}

// dialTime bounds connecting to one address of a master.
const dialTime = 5 * time.Second

// NewRemote returns a client of a master at one of the addresses, HOST:PORT, which are tried in
// turn. cfg ensures that the peer is the right master; bearer is sent to it, and may be empty.
func NewRemote(addresses []string, cfg *tls.Config, bearer string) *Client {
	return NewRemoteAt(func() []string { return addresses }, cfg, bearer)
}

// NewRemoteAt is like NewRemote, for a master whose addresses may change: each connection looks
// them up again.
func NewRemoteAt(addresses func() []string, cfg *tls.Config, bearer string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var refusals []error
		for _, address := range addresses() {
			conn, err := dialTLS(ctx, address, cfg)
			if err == nil {
				return conn, nil
			}
			refusals = append(refusals, err)
		}
		return nil, errors.Join(refusals...)
	}
	transport := &http.Transport{DialTLSContext: dial} // over a network, lists are worth compressing
	return &Client{http: &http.Client{Transport: transport}, base: "https://master", bearer: bearer}
}

func dialTLS(ctx context.Context, address string, cfg *tls.Config) (net.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, dialTime)
	defer stop()
	d := tls.Dialer{Config: cfg}
	return d.DialContext(ctx, "tcp", address)
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Node returns the node's description of itself.
func (c *Client) Node(ctx context.Context) (Node, error) {
	return get[Node](ctx, c, PathNode, nil)
}

// Backup streams a backup of the master. Only the owner of the master's state folder may request
// it.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	return body(c.do(ctx, http.MethodGet, PathBackup, nil, nil))
}

// do sends one request under OldPrefix.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	return c.send(ctx, method, OldPrefix+path, q, body, "")
}

// send sends one request, for an answer of the media type accept unless that is empty, and returns
// every response that is not a success as an *Error.
func (c *Client) send(
	ctx context.Context, method, path string, q url.Values, body io.Reader, accept string,
) (*http.Response, error) {
	u := c.base + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", method, path, err)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer := &Error{Status: resp.StatusCode}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(answer); err != nil || answer.Msg == "" {
		answer.Msg = "the node answered " + resp.Status
	}
	return nil, answer
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

func trialPath(pattern string, id grid.TrialID) string {
	return strings.Replace(sweepPath(pattern, id.Sweep), "{index}", strconv.FormatInt(id.Index, 10), 1)
}

func sweepPath(pattern string, id grid.SweepID) string {
	return strings.Replace(pattern, "{sweep}", url.PathEscape(string(id)), 1)
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	resp, err := c.do(ctx, http.MethodGet, path, q, nil)
	return decode[T](ctx, resp, err)
}

// getJSON is like get, under Prefix.
func getJSON[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	resp, err := c.send(ctx, http.MethodGet, Prefix+path, q, nil, "")
	return decode[T](ctx, resp, err)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("encode request %s: %w", path, err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, nil, bytes.NewReader(b))
	return decode[T](ctx, resp, err)
}

// body returns the body of a response, which the caller reads and closes.
func body(resp *http.Response, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// discard closes the body of a response that says nothing but that the call succeeded.
func discard(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func decode[T any](ctx context.Context, resp *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return v, lost(ctx, err)
	}
	return v, nil
}

// stream reads JSON lines until the node ends the stream properly, with an empty line.
func stream[T any](ctx context.Context, c *Client, path string, q url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		resp, err := c.do(ctx, http.MethodGet, path, q, nil)
		if err != nil {
			yield(zero, err)
			return
		}
		defer resp.Body.Close()
		r := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			raw, err := r.ReadBytes('\n')
			if err != nil {
				yield(zero, lost(ctx, err))
				return
			}
			if len(raw) == 1 {
				return
			}
			v, err := decodeLine[T](raw)
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

func decodeLine[T any](raw []byte) (T, error) {
	var line struct {
		Value T      `json:"v"` // as in Line
		Error *Error `json:"error"`
	}
	if err := json.Unmarshal(raw, &line); err != nil {
		return line.Value, fmt.Errorf("decode line %.60q: %w", raw, err)
	}
	if line.Error != nil {
		return line.Value, line.Error
	}
	return line.Value, nil
}

// Post sends a request for which this package has no method; the answer is decoded into a T.
func Post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return post[T](ctx, c, path, body)
}
