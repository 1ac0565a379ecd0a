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
)

// PurgeUnknown removes events, output and artifacts of sweeps that have no record: late reports of a sweep that was removed, and what
// a node has written under a name of its own. known is asked for each sweep of which something is stored; where it says no, the
// records are looked at once more. It gives the sweeps of which something was removed.
func (s *Store) PurgeUnknown(ctx context.Context, known func(grid.SweepID) bool) ([]grid.SweepID, error) {
	removed := map[grid.SweepID]bool{}
	for _, part := range []struct {
		stream, filter string
		sweep          func(subject string) grid.SweepID
	}{
		{eventStream, eventSubjects, sweepOf}, {logStream, logSubjects, sweepOf},
		{artifactBucket, metaOf(artifactBucket, anyNode) + ">", sweepOfArtifact}, {artifactBucket, dataOf(artifactBucket, anyNode) + ">", sweepOfArtifact},
	} {
		subjects, err := s.subjects(ctx, part.stream, part.filter)
		if err != nil {
			return nil, err
		}
		verdicts := map[grid.SweepID]bool{}
		for subject := range subjects {
			id := part.sweep(subject)
			there, asked := verdicts[id]
			if !asked {
				if there = known(id); !there {
					if there, err = s.Records.exists(ctx, id); err != nil {
						return nil, err
					}
				}
				verdicts[id] = there
			}
			if there {
				continue
			}
			if err := s.purge(ctx, part.stream, subject); err != nil {
				return nil, err
			}
			removed[id] = true
		}
	}
	return slices.Sorted(maps.Keys(removed)), nil
}

// maxSubjects bounds the subjects that are looked through at one time: nats-server and the client hold all of them in memory. A stream
// with more is not looked through.
const maxSubjects = 200_000

// subjects lists the subjects of a stream, none where there are too many.
func (s *Store) subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	info, err := s.info(ctx, stream)
	if err != nil || info.State.Msgs == 0 || info.State.NumSubjects > maxSubjects {
		return nil, err
	}
	ctx, stop := s.limited(ctx)
	defer stop()
	info, err = s.streams[stream].Info(ctx, js.WithSubjectFilter(filter))
	if err != nil {
		return nil, s.explain(ctx, "look through "+stream, err)
	}
	return info.State.Subjects, nil
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
			if err := json.Unmarshal(e.Data, &s); err != nil {
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
