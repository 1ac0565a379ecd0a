// Package docker runs attempts in containers of an engine that speaks Docker's API: Docker itself, with root rights or without, and
// the service of Podman.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	// pullIdleLimit is how long a pull may make no progress. There is no limit of its whole time: large images on slow lines take hours.
	pullIdleLimit = 5 * time.Minute
	// wantedLimit is how long a pull goes on while nobody asks for its image: its sweep has ended or is paused.
	wantedLimit = time.Minute
	// presentLimit is how long it is believed without another look that an image is there: users remove images.
	presentLimit = 30 * time.Second
	// pullBackoff is the wait before a pull that failed is tried again. It doubles each time, up to longestPullBackoff.
	pullBackoff        = 10 * time.Second
	longestPullBackoff = 5 * time.Minute
	// keptImages bounds what is remembered about images that nobody asks for any more.
	keptImages = 64
)

// Policy says when an image is pulled.
type Policy string

// The policies. With PullAlways the registry is asked once for each sweep and node, until the sweep's image is known.
const (
	PullMissing Policy = "missing"
	PullAlways  Policy = "always"
	PullNever   Policy = "never"
)

// Want names the image that trials of a sweep are to run in.
type Want struct {
	Reference string // as the task names it
	Pinned    string // what Image.Pin was where the sweep first ran; "" while nobody knows
	Policy    Policy
	Sweep     grid.SweepID // with PullAlways
}

// key is equal for wants that one pull satisfies.
func (w Want) key() Want {
	if w.Pinned != "" {
		return Want{Pinned: w.Pinned, Policy: w.Policy}
	}
	if w.Policy != PullAlways {
		w.Sweep = ""
	}
	return w
}

// target is what the engine is asked for.
func (w Want) target() string {
	if w.Pinned != "" {
		return w.Pinned
	}
	return w.Reference
}

// Image is an image that this node has.
type Image struct {
	Engine string // address of the engine that has it
	// Pin names exactly this image: NAME@sha256:DIGEST, which every node can pull, or the ID sha256:… of one that was built or imported
	// here and that no registry knows.
	Pin        string
	ID         string
	Env        []string
	Entrypoint []string
	Command    []string
}

// ByRegistry reports whether other nodes can pull what pin names.
func ByRegistry(pin string) bool { return strings.Contains(pin, "@") }

// Progress is how far a pull is. Total grows while the engine learns how large the image is.
type Progress struct {
	Done, Total int64
	Since, Last time.Time // when it began and when it last got further
}

// Status is what is known of an image at one moment. One of Image, Pulling and Err is set, or none while the engine is asked.
type Status struct {
	Image   *Image
	Pulling *Progress
	Err     *ImageError
	// Fresh is set on a failure of which Told was not called: a trial may end with it, so that its user hears of it.
	Fresh bool
}

// ImageError is why an image can't be had.
type ImageError struct {
	Class  grid.Class
	Reason string
	Again  time.Time // when it is tried again
}

func (e *ImageError) Error() string { return e.Reason }

// imageAPI is the part of the engine's client that has to do with images.
type imageAPI interface {
	ImageInspect(ctx context.Context, ref string, opts ...client.ImageInspectOption) (image.InspectResponse, error)
	ImagePull(ctx context.Context, ref string, o image.PullOptions) (io.ReadCloser, error)
	DaemonHost() string
	Close() error
}

// Images has the images of one engine pulled, each once at a time however many attempts want it. Its methods may be called from many
// goroutines and do not block on the engine. Make one with NewImages.
type Images struct {
	connect func(context.Context) (imageAPI, error)
	changed func()
	idle    time.Duration
	backoff time.Duration
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	pulls   sync.WaitGroup

	mu    sync.Mutex
	known map[Want]*entry
}

// entry is what is known of one image. The goroutine of fetch changes it until busy is false again.
type entry struct {
	busy     bool
	asked    time.Time
	seen     time.Time // when image was last found
	image    *Image
	progress *Progress
	err      *ImageError
	fresh    bool
	failures int
}

func newImages(connect func(context.Context) (imageAPI, error), changed func()) *Images {
	ctx, stop := context.WithCancel(context.Background()) // ends in Close
	return &Images{connect: connect, changed: changed, idle: pullIdleLimit, backoff: pullBackoff, ctx: ctx, stop: stop, known: map[Want]*entry{}}
}

// Close ends pulls and waits for their end.
func (m *Images) Close() {
	m.stop()
	m.pulls.Wait()
}

// Look says at once what is known of an image, and starts to look for it or to pull it where that is due. Whoever wants it asks again: a pull
// that nobody asks for ends.
func (m *Images) Look(w Want) Status {
	now := time.Now()
	key := w.key()
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.known[key]
	if e == nil {
		m.tidyLocked(now)
		e = &entry{}
		m.known[key] = e
	}
	e.asked = now
	due := e.err == nil && now.Sub(e.seen) > presentLimit || e.err != nil && now.After(e.err.Again)
	if !e.busy && due && m.ctx.Err() == nil {
		e.busy = true
		m.pulls.Go(func() { m.fetch(key, w, e) })
	}
	s := Status{Image: e.image}
	if e.progress != nil {
		p := *e.progress
		s.Pulling = &p
	} else if e.image == nil {
		s.Err, s.Fresh = e.err, e.fresh
	}
	return s
}

// Told notes that a user has been told of the image's failure.
func (m *Images) Told(w Want) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[w.key()]; e != nil {
		e.fresh = false
	}
}

// Forget has the engine asked again for an image that turned out not to be there.
func (m *Images) Forget(w Want) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.known[w.key()]; e != nil && !e.busy {
		delete(m.known, w.key())
	}
}

// tidyLocked forgets what nobody has asked for lately.
func (m *Images) tidyLocked(now time.Time) {
	if len(m.known) < keptImages {
		return
	}
	for key, e := range m.known {
		if !e.busy && now.Sub(e.asked) > wantedLimit {
			delete(m.known, key)
		}
	}
}

// fetch looks for the image, pulls it where that is needed, and notes how that went.
func (m *Images) fetch(key, w Want, e *entry) {
	img, err := m.get(m.ctx, w, e)
	m.mu.Lock()
	e.busy, e.progress = false, nil
	var failed *ImageError
	switch {
	case err == nil:
		e.image, e.seen, e.err, e.failures = img, time.Now(), nil, 0
	case errors.Is(err, errUnwanted) || m.ctx.Err() != nil:
		delete(m.known, key)
	case errors.As(err, &failed):
		failed.Again = time.Now().Add(min(m.backoff<<min(e.failures, 16), longestPullBackoff))
		e.image, e.err, e.fresh = nil, failed, true
		e.failures++
	}
	m.mu.Unlock()
	m.changed()
}

var (
	errUnwanted = errors.New("nobody wants the image any more")
	errIdle     = errors.New("the pull made no progress")
)

// get gives the image. Its errors are ImageErrors, or errUnwanted.
func (m *Images) get(ctx context.Context, w Want, e *entry) (*Image, error) {
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
			return nil, &ImageError{Class: grid.ClassImage, Reason: fmt.Sprintf("the image %s is not on this node, and pull: never forbids to pull it", w.target())}
		case w.Pinned != "" && !ByRegistry(w.Pinned):
			return nil, &ImageError{Class: grid.ClassImage, Reason: fmt.Sprintf(
				"the image %s came from no registry and is not on this node; push it to a registry, or copy it with docker save and docker load", w.Reference)}
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

func imageError(w Want, err error) *ImageError {
	return &ImageError{Class: faultClass(err), Reason: fmt.Sprintf("the image %s can't be had: %s", w.target(), err)}
}

// inspect finds the image on the engine.
func inspect(ctx context.Context, api imageAPI, w Want) (*Image, error) {
	r, err := api.ImageInspect(ctx, w.target())
	if err != nil {
		return nil, err
	}
	img := &Image{ID: r.ID, Pin: w.Pinned, Engine: api.DaemonHost()}
	if r.Config != nil {
		img.Env, img.Entrypoint, img.Command = r.Config.Env, r.Config.Entrypoint, r.Config.Cmd
	}
	if img.Pin == "" {
		img.Pin = pinOf(w.Reference, r.ID, r.RepoDigests)
	}
	return img, nil
}

// pinOf chooses the name by which other nodes get the same image: the digest under the name that the task gives it, where there is one.
func pinOf(ref, id string, digests []string) string {
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

// pull has the engine pull the image, and reads its report to the end: what goes wrong after its beginning stands in there.
func (m *Images) pull(ctx context.Context, api imageAPI, w Want, e *entry) error {
	named, err := reference.ParseNormalizedNamed(w.target())
	if err != nil {
		return &ImageError{Class: grid.ClassImage, Reason: fmt.Sprintf("%q does not name an image: %s", w.target(), err)}
	}
	auth, authErr := credentialsFor(ctx, named)
	explain := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if errors.Is(err, errUnwanted) {
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
	m.pulls.Go(func() { m.watch(ctx, cancel, e) })
	report, err := api.ImagePull(ctx, reference.TagNameOnly(named).String(), image.PullOptions{RegistryAuth: auth})
	if err != nil {
		return explain(err)
	}
	defer report.Close()
	if err := m.read(report, e); err != nil {
		return explain(err)
	}
	return nil
}

// watch ends a pull that makes no progress or that nobody wants any more.
func (m *Images) watch(ctx context.Context, cancel context.CancelCauseFunc, e *entry) {
	tick := time.NewTicker(min(m.idle/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.mu.Lock()
			ended := e.progress == nil
			idle, unwanted := !ended && now.Sub(e.progress.Last) > m.idle, now.Sub(e.asked) > wantedLimit
			m.mu.Unlock()
			if ended {
				return
			}
			switch {
			case unwanted:
				cancel(errUnwanted)
			case idle:
				cancel(fmt.Errorf("%w for %v", errIdle, m.idle))
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

// layer is one layer on its way: each byte is downloaded and then unpacked.
type layer struct {
	phase               string
	down, unpacked, all int64
}

// read follows a report to its end. Waiting to try again is not progress; a byte and a new phase of a layer are.
func (m *Images) read(report io.Reader, e *entry) error {
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
		if strings.HasPrefix(r.Status, "Retrying") || !l.advance(r) {
			continue
		}
		var done, total int64
		for _, l := range layers {
			done, total = done+l.down+l.unpacked, total+2*l.all
		}
		m.mu.Lock()
		e.progress.Done, e.progress.Total, e.progress.Last = done/2, total/2, time.Now()
		m.mu.Unlock()
	}
}

// advance follows one line and reports whether the layer got further.
func (l *layer) advance(r pullReport) bool {
	before := *l
	l.phase = r.Status
	switch r.Status {
	case "Downloading":
		l.down, l.all = r.Detail.Current, max(l.all, r.Detail.Total)
	case "Extracting":
		l.down, l.unpacked, l.all = l.all, r.Detail.Current, max(l.all, r.Detail.Total)
	case "Download complete":
		l.down = l.all
	case "Pull complete":
		l.down, l.unpacked = l.all, l.all
	}
	return *l != before
}

// String says in words how far the pull is: "43 % of 8.1 GiB, last progress 2 s ago".
func (p *Progress) String() string {
	var b bytes.Buffer
	if p.Total > 0 {
		fmt.Fprintf(&b, "%d %% of %s, ", 100*p.Done/p.Total, humanize.IBytes(uint64(p.Total)))
	}
	fmt.Fprintf(&b, "last progress %d s ago", int(time.Since(p.Last).Seconds()))
	return b.String()
}
