package monitor

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// isDigest reports whether text is a SHA-256 in hex, as bundles are named.
func isDigest(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size && strings.ToLower(text) == text
}

// fileHandlers answer calls about bundles and about the files that trials left.
type fileHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	log     *slog.Logger
}

func (h *fileHandlers) hasBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	ok, err := h.store.Bundles.Has(r.Context(), digest)
	switch {
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	}
}

// putBundle stores a bundle under its digest and keeps nothing if the content has another one. A bundle that is there already is
// not read again: its name says what is in it.
func (h *fileHandlers) putBundle(w http.ResponseWriter, r *http.Request) {
	digest := r.PathValue("digest")
	if !isDigest(digest) {
		refuse(w, badRequest("a bundle is named by its SHA-256, 64 hex digits in lower case", ""))
		return
	}
	if ok, err := h.store.Bundles.Has(r.Context(), digest); err != nil {
		refuse(w, err)
		return
	} else if ok {
		w.Header().Set("Connection", "close") // the content is not waited for
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := h.master.FreeBundles(r.Context()); err != nil {
		h.log.Warn("unused bundles could not be removed", "err", err)
	}
	sum := sha256.New()
	body := &checked{r: io.TeeReader(r.Body, sum), want: digest, sum: func() string { return hex.EncodeToString(sum.Sum(nil)) }}
	if err := h.store.Bundles.Put(r.Context(), digest, body, nil); err != nil {
		if errors.Is(err, errDigest) {
			err = badRequest("the bundle was damaged on its way", "submit again")
		}
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// errDigest makes Put fail at the end of a bundle whose content is not what its name says.
var errDigest = errors.New("content does not have the digest of its name")

// checked gives errDigest instead of the end of the stream when the digest is another one.
type checked struct {
	r    io.Reader
	want string
	sum  func() string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF && c.sum() != c.want {
		return n, errDigest
	}
	return n, err
}

// artifacts streams a tar of the files that trials left. Only the run behind a trial's state counts.
func (h *fileHandlers) artifacts(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		refuse(w, err)
		return
	}
	index, err := trialIndex(s, r.FormValue("index"))
	if err != nil {
		refuse(w, err)
		return
	}
	prefix := string(s.ID) + "/"
	if index >= 0 {
		prefix += strconv.FormatInt(index, 10) + "/"
	}
	page, place, err := h.store.Artifacts.Page(r.Context(), prefix, 0)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	t := tar.NewWriter(w)
	for {
		if err = h.copyArtifacts(r.Context(), t, s.ID, page); err != nil || place == 0 {
			break
		}
		if page, place, err = h.store.Artifacts.Page(r.Context(), prefix, place); err != nil {
			break
		}
	}
	if err != nil {
		h.log.Debug("artifacts could not be sent", "sweep", s.ID, "err", err)
		panic(http.ErrAbortHandler) // the client sees a cut stream
	}
	_ = t.Close() // the client has gone if this fails
}

// copyArtifacts adds the files of a page of artifacts, by index.
func (h *fileHandlers) copyArtifacts(ctx context.Context, t *tar.Writer, id grid.SweepID, page []jetstream.ObjectInfo) error {
	slices.SortStableFunc(page, byIndex)
	indexes := make([]int64, 0, len(page))
	for _, o := range page {
		if index, _, ok := splitArtifact(o.Name); ok {
			indexes = append(indexes, index)
		}
	}
	trials, err := h.history.TrialsAt(ctx, id, slices.Compact(indexes))
	if err != nil {
		return err
	}
	for _, o := range page {
		index, run, _ := splitArtifact(o.Name)
		if trial := trials[index]; trial == nil || trial.Run != run {
			continue
		}
		if err := h.copyArtifact(ctx, t, o.Name, index); err != nil {
			return fmt.Errorf("send %s: %w", o.Name, err)
		}
	}
	return nil
}

func (h *fileHandlers) copyArtifact(ctx context.Context, t *tar.Writer, name string, index int64) error {
	f, err := h.store.Artifacts.Open(ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	return copyTar(t, f, index)
}

// splitArtifact is the inverse of grid.TrialID.ArtifactName, less the sweep.
func splitArtifact(name string) (index int64, run string, ok bool) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) != 3 {
		return 0, "", false
	}
	index, err := strconv.ParseInt(parts[1], 10, 64)
	return index, parts[2], err == nil
}

// byIndex orders artifacts by the index of their trial.
func byIndex(a, b jetstream.ObjectInfo) int {
	i, _, _ := splitArtifact(a.Name)
	j, _, _ := splitArtifact(b.Name)
	return cmp.Compare(i, j)
}

// copyTar adds the files of one packed tar under a folder named by the trial's index.
func copyTar(t *tar.Writer, packed io.Reader, index int64) error {
	return eachPacked(packed, func(header *tar.Header, content io.Reader) error {
		header.Name = strconv.FormatInt(index, 10) + "/" + header.Name
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(t, content)
		return err
	})
}

// eachPacked calls fn for each file of a packed tar.
func eachPacked(packed io.Reader, fn func(*tar.Header, io.Reader) error) error {
	z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("read artifacts: %w", err)
	}
	defer z.Close()
	for in := tar.NewReader(z); ; {
		header, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read artifacts: %w", err)
		}
		if err := fn(header, in); err != nil {
			return err
		}
	}
}

// files lists what an attempt left.
func (h *fileHandlers) list(r *http.Request) (api.FileList, error) {
	list := api.FileList{Files: []api.File{}}
	t, err := h.lookup.trialLog(r)
	if err != nil || t.run == "" {
		return list, err
	}
	list.Attempt = t.number
	err = h.eachFile(r.Context(), t, func(header *tar.Header, _ io.Reader) error {
		if list.More = len(list.Files) == api.MaxFileList; list.More {
			return errEnough
		}
		list.Files = append(list.Files, api.File{Name: header.Name, Bytes: header.Size, Time: header.ModTime.UTC()})
		return nil
	})
	if errors.Is(err, jetstream.ErrNotFound) {
		err = nil
	}
	return list, err
}

// file sends one file of those that an attempt left. Its name is looked up among theirs, and leads nowhere else.
func (h *fileHandlers) open(w http.ResponseWriter, r *http.Request) {
	t, err := h.lookup.trialLog(r)
	if err != nil {
		refuse(w, err)
		return
	}
	name, sent := r.FormValue("name"), false
	err = errNoFile(t, name)
	if t.run != "" {
		err = h.eachFile(r.Context(), t, func(header *tar.Header, content io.Reader) error {
			if header.Name != name {
				return nil
			}
			download(w, path.Base(name), mediaBinary)
			w.Header().Set("Content-Length", strconv.FormatInt(header.Size, 10))
			sent = true
			if _, err := io.Copy(w, content); err != nil {
				return err
			}
			return errEnough
		})
	}
	switch {
	case sent && err != nil:
		h.log.Debug("a file could not be sent", "sweep", t.sweep, "trial", t.index, "file", name, "err", err)
		panic(http.ErrAbortHandler) // the client sees a cut file
	case sent:
	case err == nil || errors.Is(err, jetstream.ErrNotFound):
		refuse(w, errNoFile(t, name))
	default:
		refuse(w, err)
	}
}

func errNoFile(t *trialLog, name string) error {
	return &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("trial %d has left no file %.200q", t.index, name),
		Hint: "list them with " + strings.NewReplacer("{sweep}", string(t.sweep), "{index}", strconv.FormatInt(t.index, 10)).Replace(api.Prefix+api.PathFiles)}
}

// eachFile calls fn for each file that an attempt left, until fn returns errEnough.
func (h *fileHandlers) eachFile(ctx context.Context, t *trialLog, fn func(*tar.Header, io.Reader) error) error {
	f, err := h.store.Artifacts.Open(ctx, grid.TrialID{Sweep: t.sweep, Index: t.index}.ArtifactName(t.run))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := eachPacked(f, fn); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}
