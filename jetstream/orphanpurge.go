package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// orphanPurger removes what is stored for sweeps that have no record.
type orphanPurger struct {
	store *Store

	mu          sync.Mutex      // held while something is purged
	offset      map[string]int  // where the next PurgeOrphans begins, by filter
	batch       int             // how many subjects are checked at once
	maxSubjects uint64          // a stream with more is skipped
	crowded     map[string]bool // streams that were skipped last
}

// PurgeOrphans removes events, output and artifacts of sweeps that have no record: late reports on
// a removed sweep, and what nodes of earlier versions have stored under other names. It calls known
// for each sweep that it finds; if known returns false, it checks the records as well. Of a part
// with more than a page of subjects it checks one page, and the next one on the next call, unless
// whole is set. It skips a part with more than maxSubjects, and continues with the next part after
// an error. It returns the sweeps of which it has removed something, even with an error.
func (p *orphanPurger) PurgeOrphans(
	ctx context.Context, whole bool, known func(grid.SweepID) bool,
) ([]grid.SweepID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	removed := map[grid.SweepID]bool{}
	var failed error
	for _, part := range []orphanPart{
		{eventStream, eventSubjects, sweepOf}, {logStream, logSubjects, sweepOf},
		{artifactBucket, metaOf(artifactBucket, anyNode) + ">", sweepOfArtifact},
		{artifactBucket, dataOf(artifactBucket, anyNode) + ">", sweepOfArtifact},
	} {
		failed = errors.Join(failed, p.purgePart(ctx, part, whole, known, removed))
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

// purgePart is PurgeOrphans for one part. It adds to removed.
func (p *orphanPurger) purgePart(
	ctx context.Context, part orphanPart, whole bool, known func(grid.SweepID) bool, removed map[grid.SweepID]bool,
) error {
	info, err := p.store.streamInfo(ctx, part.stream)
	if err != nil {
		return err
	}
	crowded := info.State.NumSubjects > p.maxSubjects
	if crowded && !p.crowded[part.stream] {
		p.store.log.Warn("too many subjects to look for data that belongs to no sweep",
			"stream", part.stream, "subjects", info.State.NumSubjects, "limit", p.maxSubjects)
	}
	if p.crowded[part.stream] = crowded; crowded {
		return nil
	}
	for more := true; more; more = whole {
		page, total, err := p.subjects(ctx, part.stream, part.filter, p.offset[part.filter])
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
					if there, err = p.store.Records.exists(ctx, id); err != nil {
						return err
					}
				}
				verdicts[id] = there
			}
			if there {
				stay++
				continue
			}
			if err := p.store.purge(ctx, part.stream, subject); err != nil {
				return err
			}
			removed[id] = true
		}
		at := p.offset[part.filter]
		if at+len(page) >= total {
			p.offset[part.filter] = 0
			return nil
		}
		p.offset[part.filter] = at + stay
	}
	return nil
}

// maxSubjects bounds the subjects of a stream that is checked: for each page, nats-server lists and
// sorts all of them, which takes some 100 bytes of memory each.
const maxSubjects = 2_000_000

// subjectPage bounds the subjects that are checked at once: nats-server returns no more in one
// answer.
const subjectPage = natsd.MaxSubjectDetails

// subjects returns a page of the subjects of a stream, in order, from offset on, and the total
// number.
func (p *orphanPurger) subjects(
	ctx context.Context, stream, filter string, offset int,
) (page []string, total int, err error) {
	ctx, stop := p.store.withTimeout(ctx)
	defer stop()
	ask, err := json.Marshal(map[string]any{"subjects_filter": filter, "offset": offset})
	if err != nil {
		return nil, 0, err
	}
	msg, err := p.store.conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, ask)
	if err != nil {
		return nil, 0, p.store.explain(ctx, "list the subjects of "+stream, err)
	}
	var info struct {
		Error *js.APIError `json:"error"`
		Total int          `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := json.Unmarshal(msg.Data, &info); err != nil {
		return nil, 0, fmt.Errorf("list the subjects of %s: %w", stream, err)
	}
	if info.Error != nil {
		return nil, 0, p.store.explain(ctx, "list the subjects of "+stream, info.Error)
	}
	page = slices.Sorted(maps.Keys(info.State.Subjects))
	return page[:min(len(page), p.batch)], info.Total, nil
}

func sweepOf(subject string) grid.SweepID { return grid.SweepID(lastToken(subject)) }

// sweepOfArtifact returns the first part of an artifact's name, which follows the node.
func sweepOfArtifact(subject string) grid.SweepID {
	parts := strings.SplitN(subject, ".", 6) // mlf, bucket, meta or data, node, sweep, the rest
	if len(parts) < 5 {
		return ""
	}
	return grid.SweepID(untoken(parts[4]))
}
