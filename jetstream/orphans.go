package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// PurgeOrphans removes events, output and artifacts of sweeps that have no record: late reports of a sweep that was removed, and what
// nodes of earlier versions have written under names of their own. known is asked for each sweep of which something is stored; where it
// says no, the records are looked at once more. Of a part with more than a page of subjects it looks at one page, and at the next one
// when it is called again, unless whole is set. It passes over a part with more than maxSubjects, and goes on with the next part after an
// error. It gives the sweeps of which something was removed, also beside an error.
func (s *Store) PurgeOrphans(ctx context.Context, whole bool, known func(grid.SweepID) bool) ([]grid.SweepID, error) {
	s.looking.Lock()
	defer s.looking.Unlock()
	removed := map[grid.SweepID]bool{}
	var failed error
	for _, part := range []orphanPart{
		{eventStream, eventSubjects, sweepOf}, {logStream, logSubjects, sweepOf},
		{artifactBucket, metaOf(artifactBucket, anyNode) + ">", sweepOfArtifact}, {artifactBucket, dataOf(artifactBucket, anyNode) + ">", sweepOfArtifact},
	} {
		failed = errors.Join(failed, s.purgePart(ctx, part, whole, known, removed))
		if ctx.Err() != nil {
			break
		}
	}
	return slices.Sorted(maps.Keys(removed)), failed
}

// orphanPart is a part of the store in which each subject belongs to a sweep.
type orphanPart struct {
	stream, filter string
	sweep          func(subject string) grid.SweepID
}

// purgePart does the work of PurgeOrphans in one part, and adds to removed.
func (s *Store) purgePart(ctx context.Context, part orphanPart, whole bool, known func(grid.SweepID) bool, removed map[grid.SweepID]bool) error {
	info, err := s.info(ctx, part.stream)
	if err != nil {
		return err
	}
	crowded := info.State.NumSubjects > s.maxLook
	if crowded && !s.crowded[part.stream] {
		s.log.Warn("too many subjects to look for data that belongs to no sweep", "stream", part.stream, "subjects", info.State.NumSubjects, "limit", s.maxLook)
	}
	if s.crowded[part.stream] = crowded; crowded {
		return nil
	}
	for more := true; more; more = whole {
		page, total, err := s.subjects(ctx, part.stream, part.filter, s.looked[part.filter])
		if err != nil {
			return err
		}
		stay := 0
		verdicts := map[grid.SweepID]bool{}
		for _, subject := range page {
			id := part.sweep(subject)
			there, asked := verdicts[id]
			if !asked {
				if there = known(id); !there {
					if there, err = s.Records.exists(ctx, id); err != nil {
						return err
					}
				}
				verdicts[id] = there
			}
			if there {
				stay++
				continue
			}
			if err := s.purge(ctx, part.stream, subject); err != nil {
				return err
			}
			removed[id] = true
		}
		at := s.looked[part.filter]
		if at+len(page) >= total {
			s.looked[part.filter] = 0
			return nil
		}
		s.looked[part.filter] = at + stay
	}
	return nil
}

// maxSubjects bounds the subjects of a stream that is looked through: for each page nats-server lists and sorts all of them, which takes
// some 100 bytes of memory for each.
const maxSubjects = 2_000_000

// subjectPage bounds the subjects that are looked at together: nats-server sends no more in one answer.
const subjectPage = natsd.MaxSubjectDetails

// subjects lists a page of the subjects of a stream, in order, from the offset on, and gives how many there are in all.
func (s *Store) subjects(ctx context.Context, stream, filter string, offset int) (page []string, total int, err error) {
	ctx, stop := s.limited(ctx)
	defer stop()
	ask, err := json.Marshal(map[string]any{"subjects_filter": filter, "offset": offset})
	if err != nil {
		return nil, 0, err
	}
	msg, err := s.conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, ask)
	if err != nil {
		return nil, 0, s.explain(ctx, "look through "+stream, err)
	}
	var info struct {
		Error *js.APIError `json:"error"`
		Total int          `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := json.Unmarshal(msg.Data, &info); err != nil {
		return nil, 0, fmt.Errorf("look through %s: %w", stream, err)
	}
	if info.Error != nil {
		return nil, 0, s.explain(ctx, "look through "+stream, info.Error)
	}
	page = slices.Sorted(maps.Keys(info.State.Subjects))
	return page[:min(len(page), s.perLook)], info.Total, nil
}

func sweepOf(subject string) grid.SweepID { return grid.SweepID(lastToken(subject)) }

// sweepOfArtifact gives the first part of an artifact's name, which stands behind the node.
func sweepOfArtifact(subject string) grid.SweepID {
	parts := strings.SplitN(subject, ".", 6) // mlf, bucket, meta or data, node, sweep, the rest
	if len(parts) < 5 {
		return ""
	}
	return grid.SweepID(untoken(parts[4]))
}

// known reports whether there is a record of this id, at no cost for one that was seen before.
func (r *Records) known(ctx context.Context, id grid.SweepID) (bool, error) {
	r.mu.Lock()
	there := r.there[id]
	r.mu.Unlock()
	if there {
		return true, nil
	}
	removals := r.removals()
	there, err := r.exists(ctx, id)
	if there {
		r.see(id, removals)
	}
	return there, err
}

// see notes that there is a record, unless one may have been removed since there were so many removals.
func (r *Records) see(id grid.SweepID, removals int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone != removals {
		return
	}
	if r.there == nil {
		r.there = map[grid.SweepID]bool{}
	}
	r.there[id] = true
}

func (r *Records) removals() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// exists reports whether there is a record of this id, even one that this program can't read.
func (r *Records) exists(ctx context.Context, id grid.SweepID) (bool, error) {
	msg, err := r.last(ctx, recordSubject(id))
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrName):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for sweep %s: %w", id, err)
	}
	return msg.Header.Get(removedHeader) == "", nil
}

// Bundles gives the digests that records name, those of newer versions included. It is an error when a record can't be read at all.
func (r *Records) Bundles(ctx context.Context) (map[string]bool, error) {
	named := map[string]bool{}
	t := &tail{store: r.store, stream: recordStream, subject: recordSubjects}
	err := t.read(ctx, func(batch []entry) error {
		for _, e := range batch {
			if e.Header.Get(removedHeader) != "" {
				continue
			}
			var s struct {
				Bundle  string `json:"bundle"`
				Updates []struct {
					Bundle string `json:"bundle"`
				} `json:"updates"`
			}
			text, err := recordText(e.Data)
			if err == nil {
				err = json.Unmarshal(text, &s)
			}
			if err != nil {
				return fmt.Errorf("read the record of %s: %w", lastToken(e.Subject), err)
			}
			named[s.Bundle] = true
			for _, u := range s.Updates {
				named[u.Bundle] = true
			}
		}
		return nil
	}, nil)
	return named, err
}
