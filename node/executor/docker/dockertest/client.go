package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Client sends requests to an engine's API.
type Client struct{ http http.Client }

func newClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Do sends a request to the engine's API and decodes the answer into to, unless to is nil.
func (c *Client) Do(method, path string, body io.Reader, to any) error {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return err
	}
	if _, tar := body.(*bytes.Buffer); body != nil && !tar {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 400 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, b)
	}
	if err == nil && to != nil {
		err = json.Unmarshal(b, to)
	}
	return err
}

// Containers lists the IDs of all containers, running or not, with these labels, each written as
// name=value.
func (c *Client) Containers(labels ...string) []string {
	filter, _ := json.Marshal(map[string][]string{"label": labels}) // encoding strings can't fail
	var all []struct{ ID string }
	if c.Do(http.MethodGet, "/containers/json?all=1&filters="+url.QueryEscape(string(filter)), nil, &all) != nil {
		return nil
	}
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	return ids
}

// Running counts the containers that are running.
func (c *Client) Running() int {
	var all []struct{}
	if c.Do(http.MethodGet, "/containers/json", nil, &all) != nil {
		return -1
	}
	return len(all)
}

// Import makes an image of busybox and links.
func (c *Client) Import(ref string, links map[string]string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin/", "tmp/", "proc/", "dev/", "sys/"} {
		err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o777})
	}
	if err == nil {
		err = w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program))})
	}
	if err == nil {
		_, err = w.Write(program)
	}
	for name, to := range links {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777})
		}
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return err
	}
	q := url.Values{"fromSrc": {"-"}, "repo": {ref}} // Podman ignores a tag
	return c.Do(http.MethodPost, "/images/create?"+q.Encode(), &b, nil)
}

// ForbiddenError explains why this machine lets an engine run no container at all.
type ForbiddenError struct{ Reason string }

func (e *ForbiddenError) Error() string {
	return "this machine lets the engine run no container: " + e.Reason
}

// tryContainer runs a container by the engine's own means. If not even that is possible, the error
// is a *ForbiddenError.
func (c *Client) tryContainer() error {
	var made struct{ ID string }
	body := strings.NewReader(fmt.Sprintf(`{"Image":%q,"Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}`, Image))
	if err := c.Do(http.MethodPost, "/containers/create", body, &made); err != nil {
		return err
	}
	defer c.Do(http.MethodDelete, "/containers/"+made.ID+"?force=1&v=1", nil, nil)
	if err := c.Do(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil); err != nil {
		return &ForbiddenError{err.Error()}
	}
	var end struct{ StatusCode int }
	err := c.Do(http.MethodPost, "/containers/"+made.ID+"/wait", nil, &end)
	if err == nil && end.StatusCode != 0 {
		err = &ForbiddenError{fmt.Sprintf("true ends with %d", end.StatusCode)}
	}
	return err
}
