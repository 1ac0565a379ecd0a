package monitor

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// maxRun bounds the name of a run: a node, the life of its agent, and a number.
const maxRun = 256

// putArtifacts stores the artifacts of a run. A node may store only those of its own runs, for
// trials that exist.
func (h *fileHandlers) putArtifacts(r *http.Request) (struct{}, error) {
	var none struct{}
	node, err := peer(r)
	if err != nil {
		return none, err
	}
	run := r.PathValue("run")
	index, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || len(run) > maxRun || !strings.HasPrefix(run, string(node)+".") {
		return none, &api.Error{Status: http.StatusForbidden, Msg: "a node stores what its own runs have left"}
	}
	id := grid.TrialID{Sweep: grid.SweepID(r.PathValue("sweep")), Index: index}
	record, ok := h.master.Sweep(id.Sweep)
	if !ok || index < 0 || index >= record.Sweep.Space.Count() {
		return none, &api.Error{Status: http.StatusNotFound, Msg: "there is no trial " + id.String()}
	}
	return none, storeError(h.store.PutArtifactsOf(r.Context(), node, id, run, r.Body))
}

// storeError returns the response for an error of the store.
func storeError(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrFull):
		return &api.Error{Status: http.StatusInsufficientStorage, Code: api.CodeStoreFull, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrTooLarge):
		return &api.Error{Status: http.StatusRequestEntityTooLarge, Code: api.CodeTooLarge, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrNotFound):
		return &api.Error{Status: http.StatusNotFound, Msg: err.Error()}
	case errors.Is(err, jetstream.ErrDisk):
		return &api.Error{Status: http.StatusServiceUnavailable, Code: api.CodeStoreDisk, Msg: err.Error()}
	}
	return err
}

// artifacts streams a tar of the files that trials left. Only the run that determines a trial's
// state counts.
func (h *fileHandlers) artifacts(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	index, err := trialIndex(s, r.FormValue("index"))
	if err != nil {
		sendError(w, err)
		return
	}
	prefix := string(s.ID) + "/"
	if index >= 0 {
		prefix += strconv.FormatInt(index, 10) + "/"
	}
	page, place, err := h.store.Artifacts.Page(r.Context(), prefix, 0)
	if err != nil {
		sendError(w, err)
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

// copyArtifacts adds the files of a page of artifacts, in the order of the index.
func (h *fileHandlers) copyArtifacts(
	ctx context.Context, t *tar.Writer, id grid.SweepID, page []jetstream.ObjectInfo,
) error {
	slices.SortStableFunc(page, func(a, b jetstream.ObjectInfo) int {
		i, _, _ := splitArtifact(a.Name)
		j, _, _ := splitArtifact(b.Name)
		return cmp.Compare(i, j)
	})
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

// copyArtifact adds the files of an artifact, in a folder named after the trial's index.
func (h *fileHandlers) copyArtifact(ctx context.Context, t *tar.Writer, name string, index int64) error {
	f, err := h.store.Artifacts.Open(ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	return eachPacked(f, func(header *tar.Header, content io.Reader) error {
		header.Name = strconv.FormatInt(index, 10) + "/" + header.Name
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(t, content)
		return err
	})
}

// splitArtifact is the inverse of grid.TrialID.ArtifactName, without the sweep.
func splitArtifact(name string) (index int64, run string, ok bool) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) != 3 {
		return 0, "", false
	}
	index, err := strconv.ParseInt(parts[1], 10, 64)
	return index, parts[2], err == nil
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

// list answers with the files that an attempt left.
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

// open sends one of the files that an attempt left. The name is matched against the names of these
// files, so it leads nowhere else.
func (h *fileHandlers) open(w http.ResponseWriter, r *http.Request) {
	t, err := h.lookup.trialLog(r)
	if err != nil {
		sendError(w, err)
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
		sendError(w, errNoFile(t, name))
	default:
		sendError(w, err)
	}
}

func errNoFile(t *trialLog, name string) error {
	return &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("trial %d has left no file %.200q", t.index, name),
		Hint: "list them with " +
			strings.NewReplacer("{sweep}", string(t.sweep),
				"{index}", strconv.FormatInt(t.index, 10)).Replace(api.Prefix+api.PathFiles)}
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
