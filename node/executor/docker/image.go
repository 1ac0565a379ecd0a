// Package docker runs attempts in containers of an engine that speaks Docker's API: Docker itself,
// rootful or rootless, and the service of Podman.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/dustin/go-humanize"

	"mlfnode/grid"
)

const (
	// pullIdleLimit is how long a pull may make no progress. Its total time has no limit, since
	// large images on slow lines take hours.
	pullIdleLimit = 5 * time.Minute
	// requestTTL is how long a pull continues after the last request for its image, whose sweep has
	// ended or is paused.
	requestTTL = time.Minute
	// presenceTTL is how long an image is assumed to exist without asking the engine: users remove
	// images.
	presenceTTL = 30 * time.Second
	// pullBackoff is the pause after the first failed pull. It doubles up to maxPullBackoff.
	pullBackoff    = 10 * time.Second
	maxPullBackoff = 5 * time.Minute
	// maxTracked is the number of tracked images from which those without requests are evicted.
	maxTracked = 64
)

// Policy says when an image is pulled.
type Policy string

// The policies. With PullAlways each node asks the registry once per sweep, until the sweep's image
// is pinned.
const (
	PullMissing Policy = "missing"
	PullAlways  Policy = "always"
	PullNever   Policy = "never"
)

// ImageRequest names the image in which the trials of a sweep run.
type ImageRequest struct {
	Reference string // as the task names it
	Pinned    string // Image.Pin where the sweep first ran; "" until it has run
	Policy    Policy
	Sweep     grid.SweepID // with PullAlways
}

// key is equal for requests that one pull satisfies.
func (w ImageRequest) key() ImageRequest {
	if w.Pinned != "" {
		return ImageRequest{Pinned: w.Pinned, Policy: w.Policy}
	}
	if w.Policy != PullAlways {
		w.Sweep = ""
	}
	return w
}

// target is the name by which the engine gets the image.
func (w ImageRequest) target() string {
	if w.Pinned != "" {
		return w.Pinned
	}
	return w.Reference
}

// Image is an image that this node has.
type Image struct {
	Engine string // address of the engine that has it
	// Pin names exactly this image: NAME@sha256:DIGEST, which every node can pull, or the ID
	// sha256:… of an image that was built or imported here and that no registry has.
	Pin        string
	ID         string
	Env        []string
	Entrypoint []string
	Command    []string
}

// IsDigestPin reports whether a pin names an image by its digest, so that other nodes can pull it.
func IsDigestPin(pin string) bool { return strings.Contains(pin, "@") }

// Progress is how far a pull is. Total grows while the engine discovers the image's layers.
type Progress struct {
	Done, Total int64
	Since, Last time.Time // when it began and when it last progressed
}

// ImageStatus is the state of an image on this node. At most one of Image, Pulling and Err is set;
// none while the engine is being asked.
type ImageStatus struct {
	Image   *Image
	Pulling *Progress
	Err     *ImageError
	// Unreported is set on a failure until MarkReported: a trial may fail with it, so that its user
	// learns of it.
	Unreported bool
}

// ImageError is why an image is not available.
type ImageError struct {
	Class  grid.Class
	Reason string
	Again  time.Time // when the next attempt is due
}

func (e *ImageError) Error() string { return e.Reason }

// imageAPI is the part of the engine's client that deals with images.
type imageAPI interface {
	ImageInspect(ctx context.Context, ref string, opts ...client.ImageInspectOption) (image.InspectResponse, error)
	ImagePull(ctx context.Context, ref string, o image.PullOptions) (io.ReadCloser, error)
	DaemonHost() string
	Close() error
}

// Images pulls images into one engine, each once at a time however many attempts request it. Its
// methods are safe for concurrent use and do not wait for the engine. Make one with NewImages.
type Images struct {
	connect func(context.Context) (imageAPI, error)
	changed func()
	idle    time.Duration
	backoff time.Duration
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	pulls   sync.WaitGroup

	mu      sync.Mutex
	tracked map[ImageRequest]*trackedImage
}

// trackedImage is what is known about one image. While fetching is set, the goroutine of fetch owns
// the other fields but requestedAt.
type trackedImage struct {
	fetching    bool
	requestedAt time.Time
	foundAt     time.Time // when image was last found
	image       *Image
	progress    *Progress
	err         *ImageError
	unreported  bool
	failures    int
}

func newImages(connect func(context.Context) (imageAPI, error), changed func()) *Images {
	ctx, stop := context.WithCancel(context.Background()) // ends in Close
	return &Images{connect: connect, changed: changed, idle: pullIdleLimit, backoff: pullBackoff, ctx: ctx, stop: stop,
		tracked: map[ImageRequest]*trackedImage{}}
}

// Close cancels all pulls and waits until they have ended.
func (m *Images) Close() {
	m.stop()
	m.pulls.Wait()
}

// Status returns the state of an image, and starts to look for it or to pull it if that is due. The
// caller repeats it for as long as it needs the image: a pull that nobody requests is cancelled.
func (m *Images) Status(w ImageRequest) ImageStatus {
	now := time.Now()
	key := w.key()
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.tracked[key]
	if e == nil {
		if len(m.tracked) >= maxTracked {
			maps.DeleteFunc(m.tracked, func(_ ImageRequest, e *trackedImage) bool {
				return !e.fetching && now.Sub(e.requestedAt) > requestTTL
			})
		}
		e = &trackedImage{}
		m.tracked[key] = e
	}
	e.requestedAt = now
	due := e.err == nil && now.Sub(e.foundAt) > presenceTTL || e.err != nil && now.After(e.err.Again)
	if !e.fetching && due && m.ctx.Err() == nil {
		e.fetching = true
		m.pulls.Go(func() { m.fetch(key, w, e) })
	}
	s := ImageStatus{Image: e.image}
	if e.progress != nil {
		p := *e.progress
		s.Pulling = &p
	} else if e.image == nil {
		s.Err, s.Unreported = e.err, e.unreported
	}
	return s
}

// MarkReported records that a user has been told about the image's failure.
func (m *Images) MarkReported(w ImageRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.tracked[w.key()]; e != nil {
		e.unreported = false
	}
}

// Invalidate drops what is known about an image that turned out to be missing.
func (m *Images) Invalidate(w ImageRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.tracked[w.key()]; e != nil && !e.fetching {
		delete(m.tracked, w.key())
	}
}

// fetch gets the image and records the result.
func (m *Images) fetch(key, w ImageRequest, e *trackedImage) {
	img, err := m.ensure(m.ctx, w, e)
	m.mu.Lock()
	e.fetching, e.progress = false, nil
	var failed *ImageError
	switch {
	case err == nil:
		e.image, e.foundAt, e.err, e.failures = img, time.Now(), nil, 0
	case errors.Is(err, errNotRequested) || m.ctx.Err() != nil:
		delete(m.tracked, key)
	case errors.As(err, &failed):
		failed.Again = time.Now().Add(min(m.backoff<<min(e.failures, 16), maxPullBackoff))
		e.image, e.err, e.unreported = nil, failed, true
		e.failures++
	}
	m.mu.Unlock()
	m.changed()
}

var (
	errNotRequested = errors.New("nobody wants the image any more")
	errStalled      = errors.New("the pull made no progress")
)

// ensure finds the image on the engine, or pulls it. Its errors are ImageErrors, or
// errNotRequested.
func (m *Images) ensure(ctx context.Context, w ImageRequest, e *trackedImage) (*Image, error) {
	api, err := m.connect(ctx)
	if err != nil {
		return nil, &ImageError{Class: grid.ClassEngine, Reason: err.Error()}
	}
	defer api.Close()
	if w.Policy != PullAlways || w.Pinned != "" || e.image != nil {
		img, err := inspect(ctx, api, w)
		switch {
		case err == nil:
			return img, nil
		case !errdefs.IsNotFound(err):
			return nil, imageError(w, err)
		case w.Policy == PullNever:
			return nil, &ImageError{Class: grid.ClassImage,
				Reason: fmt.Sprintf("the image %s is not on this node, and pull: never forbids to pull it", w.target())}
		case w.Pinned != "" && !IsDigestPin(w.Pinned):
			return nil, &ImageError{Class: grid.ClassImage, Reason: fmt.Sprintf(
				"the image %s came from no registry and is not on this node; push it to a registry, or copy it with docker save and docker load",
				w.Reference)}
		}
	}
	if err := m.pull(ctx, api, w, e); err != nil {
		return nil, err
	}
	img, err := inspect(ctx, api, w)
	if err != nil {
		return nil, imageError(w, err)
	}
	return img, nil
}

func imageError(w ImageRequest, err error) *ImageError {
	return &ImageError{Class: imageErrorClass(err),
		Reason: fmt.Sprintf("the image %s can't be had: %s", w.target(), err)}
}

// inspect returns the image if the engine has it.
func inspect(ctx context.Context, api imageAPI, w ImageRequest) (*Image, error) {
	r, err := api.ImageInspect(ctx, w.target())
	if err != nil {
		return nil, err
	}
	img := &Image{ID: r.ID, Pin: w.Pinned, Engine: api.DaemonHost()}
	if r.Config != nil {
		img.Env, img.Entrypoint, img.Command = r.Config.Env, r.Config.Entrypoint, r.Config.Cmd
	}
	if img.Pin == "" {
		img.Pin = pinFor(w.Reference, r.ID, r.RepoDigests)
	}
	return img, nil
}

// pinFor returns the name by which other nodes get the same image: its digest under the task's name
// for it, or else its ID.
func pinFor(ref, id string, digests []string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return id
	}
	for _, d := range digests {
		if other, err := reference.ParseNormalizedNamed(d); err == nil && other.Name() == named.Name() {
			return other.String()
		}
	}
	return id
}

// pull pulls the image and follows the engine's report to the end, because failures after the start
// of a pull are reported only there.
func (m *Images) pull(ctx context.Context, api imageAPI, w ImageRequest, e *trackedImage) error {
	named, err := reference.ParseNormalizedNamed(w.target())
	if err != nil {
		return &ImageError{Class: grid.ClassImage,
			Reason: fmt.Sprintf("%q does not name an image: %s", w.target(), err)}
	}
	auth, authErr := credentialsFor(ctx, named)
	explain := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if errors.Is(err, errNotRequested) {
			return err
		}
		failed := imageError(w, err)
		if authErr != nil {
			failed.Reason += " (" + authErr.Error() + ")"
		}
		return failed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	now := time.Now()
	e.progress = &Progress{Since: now, Last: now}
	m.mu.Unlock()
	m.changed()
	m.pulls.Go(func() { m.cancelStalled(ctx, cancel, e) })
	report, err := api.ImagePull(ctx, reference.TagNameOnly(named).String(), image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return explain(err)
	}
	defer report.Close()
	if err := m.followReport(report, e); err != nil {
		return explain(err)
	}
	return nil
}

// cancelStalled cancels a pull that makes no progress or that nobody requests any more.
func (m *Images) cancelStalled(ctx context.Context, cancel context.CancelCauseFunc, e *trackedImage) {
	tick := time.NewTicker(min(m.idle/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.mu.Lock()
			ended := e.progress == nil
			idle, unwanted := !ended && now.Sub(e.progress.Last) > m.idle, now.Sub(e.requestedAt) > requestTTL
			m.mu.Unlock()
			if ended {
				return
			}
			switch {
			case unwanted:
				cancel(errNotRequested)
			case idle:
				cancel(fmt.Errorf("%w for %v", errStalled, m.idle))
			}
		}
	}
}

// pullReport is one line of the engine's report about a pull.
type pullReport struct {
	Status string `json:"status"`
	ID     string `json:"id"` // of a layer
	Detail struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error string `json:"error"`
}

// layer is the progress of one layer. Each byte is downloaded and then unpacked.
type layer struct {
	phase                      string
	downloaded, unpacked, size int64
}

// followReport reads a report to its end. A byte or a new phase of a layer counts as progress; a
// wait before a retry does not.
func (m *Images) followReport(report io.Reader, e *trackedImage) error {
	layers := map[string]*layer{}
	for dec := json.NewDecoder(report); ; {
		var r pullReport
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's report about the pull: %w", err)
		}
		if r.Error != "" {
			return errors.New(r.Error)
		}
		l := layers[r.ID]
		if l == nil {
			l = &layer{}
			layers[r.ID] = l
		}
		if strings.HasPrefix(r.Status, "Retrying") || !l.update(r) {
			continue
		}
		var done, total int64
		for _, l := range layers {
			done, total = done+l.downloaded+l.unpacked, total+2*l.size
		}
		m.mu.Lock()
		e.progress.Done, e.progress.Total, e.progress.Last = done/2, total/2, time.Now()
		m.mu.Unlock()
	}
}

// update applies one line of the report and reports whether the layer progressed.
func (l *layer) update(r pullReport) bool {
	before := *l
	l.phase = r.Status
	switch r.Status {
	case "Downloading":
		l.downloaded, l.size = r.Detail.Current, max(l.size, r.Detail.Total)
	case "Extracting":
		l.downloaded, l.unpacked, l.size = l.size, r.Detail.Current, max(l.size, r.Detail.Total)
	case "Download complete":
		l.downloaded = l.size
	case "Pull complete":
		l.downloaded, l.unpacked = l.size, l.size
	}
	return *l != before
}

// String describes the progress: "43 % of 8.1 GiB, last progress 2 s ago".
func (p *Progress) String() string {
	var b bytes.Buffer
	if p.Total > 0 {
		fmt.Fprintf(&b, "%d %% of %s, ", 100*p.Done/p.Total, humanize.IBytes(uint64(p.Total)))
	}
	fmt.Fprintf(&b, "last progress %d s ago", int(time.Since(p.Last).Seconds()))
	return b.String()
}
